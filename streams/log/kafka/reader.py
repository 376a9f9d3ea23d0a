"""Reads from Kafka: one consumer, as a member of a group or with all partitions to itself.

Groups use the classic protocol, with which the partitions of a killed member move after `session.timeout.ms` (the
time-out of KIP-848 belongs to the broker: 45 s). SPREAD is cooperative-sticky (KIP-429), TOGETHER is range.

A rebalance runs inside `read`, in this order: committed positions are fetched (after waiting for transactions that are
still open on them, KIP-447), the listener is called and may seek, then fetching starts. See `rebalance`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from tailrace.streams.log.base import Batch, Committed, LogError, Positions, Sharing, Subscription, TopicPartition
from tailrace.streams.log.kafka.client import Connection, log
from tailrace.streams.log.kafka.errors import ErrorKind, classify, error_of, topic_error
from tailrace.streams.log.kafka.rebalance import Phase, Rebalance
from tailrace.streams.log.records import Record

NO_GROUP = "tailrace-no-group"  # librdkafka wants a name even from readers that never commit
RECHECK_S = 0.5  # time after which a silent partition is asked whether it still ends where it did
STABLE_S = 60.0  # limit of the wait for another member's open transaction, which times out by itself before
SEEK_S = 5.0  # limit of the time until a partition just assigned accepts a seek


class KafkaReader:
    """Implements `log.base.Reader`. Made by `KafkaLog`; it gets its partitions by `join`, `take_all` or `take`."""

    def __init__(self, connection: Connection, subscription: Subscription) -> None:
        self._connection, self._group = connection, subscription.group
        self._cooperative = subscription.sharing is Sharing.SPREAD
        self._rebalance = Rebalance(subscription.listener, OFFSET_BEGINNING)
        self._ends: dict[TopicPartition, int] = {}  # of partitions read TOGETHER: the last end reported
        self._checked = 0.0  # time of the last check of these ends
        self._progress = False  # records were returned since
        self.consumer = connection.consumer(_settings(subscription, self._cooperative))

    # ---- getting partitions

    def join(self, topics: Sequence[str]) -> None:
        """Become a member of the group. Raises TopicMissing, Unreachable."""
        self._connection.await_topics(self.consumer, topics)
        self.consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def take_all(self, topics: Sequence[str], start: Mapping[TopicPartition, int]) -> None:
        """Read every partition of these topics, without membership in a group. Raises TopicMissing, Unreachable."""
        counts = self._connection.await_topics(self.consumer, topics)
        self.take((TopicPartition(topic, n) for topic, count in counts.items() for n in range(count)), start)

    def take(self, partitions: Iterable[TopicPartition], start: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, without membership in a group.

        Reading begins at `start`, else at the group's committed positions, else at the beginning.
        """
        self._rebalance.take(self._committed(partitions), start)
        self.consumer.assign(_places(self._rebalance.starts))

    # ---- the port

    def read(self, max_records: int, timeout: float) -> Batch:
        """See `log.base.Reader.read`. Returns at once, without records, when a partition's end is reached."""
        deadline = time.monotonic() + timeout
        self._rebalance.announce()
        while True:
            if self._progress and self._ends and time.monotonic() > self._checked + RECHECK_S:
                self._check_ends()
            batch = self._poll(max_records, max(0.0, deadline - time.monotonic()))
            self._progress |= bool(batch.records)
            if batch.records or batch.at_end or time.monotonic() >= deadline:
                return batch

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """Partitions that this reader holds now."""
        return frozenset(self._rebalance.held)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue reading from these positions; librdkafka drops the records already fetched."""
        for at, offset in self._rebalance.seek(positions).items():
            self._seek(at, offset)

    def rewind(self) -> dict[TopicPartition, Committed | None]:
        """Go back to the committed positions and return them."""
        committed = self._committed(self._rebalance.held)
        self.seek(self._rebalance.starts_of(committed))
        return committed

    def close(self) -> None:
        """Leave the group. The listener is not called."""
        self._rebalance.close()
        self.consumer.close()
        self._rebalance.held.clear()

    # ---- for the writer

    @property
    def revoking(self) -> bool:
        """True while the listener hears that partitions are revoked, and may still commit for them."""
        return self._rebalance.phase is Phase.REVOKING

    def offsets(self, positions: Positions) -> list[Place]:
        """Convert positions for librdkafka. Raises Aborted when the reader does not hold one of the partitions."""
        self._rebalance.check_held(positions, self._group)
        return [Place(at.topic, at.partition, new.offset, new.metadata) for at, new in positions.items()]

    # ---- reading

    def _poll(self, max_records: int, wait: float) -> Batch:
        """Wait for one record, then take those already fetched: `consume` alone would wait for a full batch."""
        first = self.consumer.poll(wait)
        self._rebalance.begin_consume()
        messages = []
        if first is not None:
            messages = [first, *self.consumer.consume(max_records - 1, 0)] if max_records > 1 else [first]
        self._rebalance.raise_error()
        if not messages:
            self._connection.check(self.consumer)
            return Batch([])
        self._connection.down_since = None
        if self._rebalance.moved:
            messages = self._drop_moved(messages, self._rebalance.moved)
        if any(map(Message.error, messages)):
            return self._with_events(messages)
        return Batch(_records(messages))

    def _drop_moved(self, messages: list[Message], moved: frozenset[TopicPartition]) -> list[Message]:
        """Drop records of partitions that a rebalance moved meanwhile; seek those still held to their start."""
        for at in {_at(message) for message in messages} & moved & self._rebalance.held:
            self._seek(at, self._rebalance.starts[at])
        return [message for message in messages if _at(message) not in moved]

    def _with_events(self, messages: list[Message]) -> Batch:
        at_end: dict[TopicPartition, int] = {}
        kept: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                kept.append(message)
                if self._cooperative:
                    at_end.pop(_at(message), None)
                else:
                    at_end.clear()  # read TOGETHER: the others may have grown since
            elif classify(error) is ErrorKind.END:
                at_end[_at(message)] = message.offset() or 0
                if not self._cooperative:
                    self._ends[_at(message)] = message.offset() or 0
            else:
                self._raise_if_serious(message, error)
        return Batch(_records(kept), at_end)

    def _check_ends(self) -> None:
        """Make silent partitions report their end again, because librdkafka reports it once."""
        self._checked, self._progress = time.monotonic(), False
        ends, self._ends = self._ends, {}
        for place in self.consumer.position(_places(ends)):
            at = TopicPartition(place.topic, place.partition)
            if place.offset <= ends[at]:
                self._seek(at, ends[at])

    def _raise_if_serious(self, message: Message, error: KafkaError) -> None:
        """Raise errors that librdkafka does not recover from by itself."""
        kind = classify(error)
        if kind is ErrorKind.TOPIC_MISSING:
            raise topic_error(message.topic() or "?")
        if kind is ErrorKind.DENIED or error.fatal():
            raise LogError(f"Reading from {self._connection.bootstrap} failed: {error.str()}")
        log.warning("reading continues after an error", error=error.str())

    # ---- rebalancing; librdkafka calls these from within poll and consume

    def _on_assign(self, consumer: Consumer, places: list[Place]) -> None:
        self._ends.clear()
        starts = _places(self._rebalance.assign(self._committed(map(_of_place, places))))
        consumer.incremental_assign(starts) if self._cooperative else consumer.assign(starts)

    def _on_revoke(self, consumer: Consumer, places: list[Place]) -> None:
        self._rebalance.revoke(frozenset(map(_of_place, places)))
        self._unassign(consumer, places)

    def _on_lost(self, consumer: Consumer, places: list[Place]) -> None:
        self._unassign(consumer, places)
        self._rebalance.lose(frozenset(map(_of_place, places)))

    def _unassign(self, consumer: Consumer, places: list[Place]) -> None:
        self._ends.clear()
        consumer.incremental_unassign(places) if self._cooperative else consumer.unassign()

    # ---- positions

    def _committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        wanted = [Place(at.topic, at.partition) for at in partitions]
        if self._group is None or not wanted:
            return dict.fromkeys(map(_of_place, wanted))
        deadline = time.monotonic() + STABLE_S
        while True:
            try:
                places = self.consumer.committed(wanted, timeout=5)
                failed = next((place.error for place in places if place.error is not None), None)
            except KafkaException as raised:
                failed = error_of(raised)
            if failed is None:
                return {_of_place(place): _commit(place) for place in places}
            kind, late = classify(failed), time.monotonic() > deadline
            if kind is ErrorKind.DENIED:
                raise LogError(f"The committed positions of group {self._group!r} cannot be read: {failed.str()}")
            if late:
                raise self._connection.unreachable(STABLE_S, failed.str())
            time.sleep(0.02)  # an unstable offset is answered at once; do not flood the coordinator

    def _seek(self, at: TopicPartition, offset: int) -> None:
        self._ends.pop(at, None)
        deadline = time.monotonic() + SEEK_S
        while True:
            try:
                return self.consumer.seek(Place(at.topic, at.partition, offset))
            except KafkaException as raised:  # _STATE: assigned a moment ago, its fetcher has not begun
                error = error_of(raised)
                if error.code() != KafkaError._STATE or time.monotonic() > deadline:
                    raise LogError(f"{at.topic}[{at.partition}] cannot be read from {offset}: {error.str()}") from None
                time.sleep(0.005)


def _settings(subscription: Subscription, cooperative: bool) -> dict[str, object]:
    return {
        "group.id": subscription.group or NO_GROUP,
        "client.id": subscription.instance or "tailrace",
        "partition.assignment.strategy": "cooperative-sticky" if cooperative else "range",
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 2_000,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        # A fetch is answered as soon as there is a record; an idle fetch must not delay partitions assigned later.
        "fetch.wait.max.ms": 5 if subscription.group else 100,
        "fetch.queue.backoff.ms": 2,  # the default second stalls a fast reader
        "max.partition.fetch.bytes": 262_144,  # catching up, partitions take turns, none far ahead of the others
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 65_536,
    }


def _records(messages: list[Any]) -> list[Record]:
    """Convert messages, at 0.15 us a record; most topics have no headers."""
    found = _headers(messages)
    if any(found):
        return [
            Record(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), tuple(headers or ()))
            for m, headers in zip(messages, found, strict=True)
        ]
    return [Record(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value()) for m in messages]


def _headers(messages: list[Any]) -> list[list[tuple[str, bytes | None]] | None]:
    """Return the headers of each message; None without any, and where a name is not UTF-8.

    For such a name confluent-kafka raises at the first call, and returns a broken list at a second one.
    """
    found: list[list[tuple[str, bytes | None]] | None] = []
    rest: Any = map(Message.headers, messages)
    while len(found) < len(messages):
        try:
            found.extend(rest)
        except (SystemError, UnicodeDecodeError) as error:
            log.warning("a record is read without its headers", at=str(_at(messages[len(found)])), error=str(error))
            found.append(None)
    return found


def _at(message: Any) -> TopicPartition:
    return TopicPartition(message.topic(), message.partition())


def _of_place(place: Place) -> TopicPartition:
    return TopicPartition(place.topic, place.partition)


def _commit(place: Place) -> Committed | None:
    return None if place.offset == OFFSET_INVALID else Committed(place.offset, place.metadata or "")


def _places(positions: Mapping[TopicPartition, int]) -> list[Place]:
    return [Place(at.topic, at.partition, offset) for at, offset in positions.items()]
