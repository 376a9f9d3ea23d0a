"""Reads from Kafka: one consumer, as a member of a group or with all partitions to itself.

Groups use the classic protocol, with which a killed member's partitions move on after `session.timeout.ms` (KIP-848's
time-out belongs to the broker: 45 s). SPREAD is cooperative-sticky (KIP-429), TOGETHER is range.

A rebalance runs inside `read`, in this order: committed positions are fetched (waiting for transactions that are still
open on them, KIP-447), the listener is told and may seek, only then are the partitions fetched from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from tailrace.streams.log.base import (
    Aborted,
    Assignment,
    Batch,
    Committed,
    LogError,
    Positions,
    Sharing,
    TopicPartition,
)
from tailrace.streams.log.kafka.client import CHATTER, MISSING_TOPIC, Connection, error_of, log, topic_missing
from tailrace.streams.log.records import Record

NO_GROUP = "tailrace-no-group"  # librdkafka wants a name even from those who never commit
ASK_AGAIN = 0.5  # seconds after which a silent partition is asked whether it still ends where it did
STABLE_LIMIT = 60.0  # seconds to wait for another member's open transaction to end (it times out by itself before)
SEEK_LIMIT = 5.0  # seconds until a partition just assigned must accept a seek
DENIED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})
NO_ANSWER = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE})


class KafkaReader:
    """Implements `log.base.Reader`. Made by `KafkaLog.reader`; give it partitions by `join` or by `take_all`."""

    def __init__(
        self,
        connection: Connection,
        group: str | None = None,
        instance: str = "",
        sharing: Sharing = Sharing.SPREAD,
        listener: Assignment | None = None,
    ) -> None:
        self._connection, self._group, self._listener = connection, group, listener
        self._cooperative = sharing is Sharing.SPREAD
        self._held: set[TopicPartition] = set()
        self._starts: dict[TopicPartition, int] = {}  # where the partitions were told to begin
        self._untold: dict[TopicPartition, Committed | None] | None = None  # taken, but the listener does not know yet
        self._moved: set[TopicPartition] = set()  # came or went during the consume call under way
        self._ends: dict[TopicPartition, int] = {}  # read TOGETHER: where partitions ended
        self._asked = 0.0  # when they were last asked
        self._told = False  # records were returned since
        self._assigning = False
        self._raised: Exception | None = None  # by the listener; raised on when the rebalance is through
        self._closing = False
        self.moving = False  # true while the listener hears that partitions are leaving
        self.consumer = Consumer(connection.settings() | _settings(group, instance, self._cooperative), logger=CHATTER)

    # ---- how it gets its partitions

    def join(self, topics: Sequence[str]) -> None:
        """Become a member of the group. Raises TopicMissing, Unreachable."""
        self._connection.await_topics(self.consumer, topics)
        self.consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def take_all(self, topics: Sequence[str], start: Mapping[TopicPartition, int] | None = None) -> None:
        """Take every partition of these topics, asking nobody. Raises TopicMissing, Unreachable."""
        counts = self._connection.await_topics(self.consumer, topics)
        self.take((TopicPartition(topic, n) for topic, count in counts.items() for n in range(count)), start)

    def take(self, partitions: Iterable[TopicPartition], start: Mapping[TopicPartition, int] | None = None) -> None:
        """Take these partitions from `start`, else from the group's committed positions, else from the beginning."""
        self._held = set(partitions)
        committed = self._committed(self._held)
        self._starts = _starts(committed) | {at: offset for at, offset in (start or {}).items() if at in self._held}
        self.consumer.assign(_places(self._starts))
        self._untold = committed

    # ---- the port

    def read(self, max_records: int, timeout: float) -> Batch:
        """See `log.base.Reader.read`. The end of a partition is news too: returns at once, without records."""
        deadline = time.monotonic() + timeout
        if self._untold is not None:
            untold, self._untold = self._untold, None
            if self._listener is not None:
                self._listener.assigned(untold)
        while True:
            if self._told and self._ends and time.monotonic() > self._asked + ASK_AGAIN:
                self._ask_again()
            batch = self._take(max_records, max(0.0, deadline - time.monotonic()))
            self._told |= bool(batch.records)
            if batch.records or batch.at_end or time.monotonic() >= deadline:
                return batch

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions this reader holds now."""
        return frozenset(self._held)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read on from these positions; records already fetched are dropped by librdkafka."""
        for at, offset in positions.items():
            if at in self._held and not self.moving:
                self._starts[at] = offset
                if not self._assigning:
                    self._seek(at, offset)

    def rewind(self) -> dict[TopicPartition, Committed | None]:
        """Go back to the committed positions, and tell them."""
        committed = self._committed(self._held)
        self.seek(_starts(committed))
        return committed

    def close(self) -> None:
        """Leave the group. The listener is not told."""
        self._closing = True
        self.consumer.close()
        self._held.clear()

    # ---- for the writer

    def offsets(self, positions: Positions) -> list[Place]:
        """The positions as librdkafka wants them. Raises Aborted when one of the partitions is no longer ours."""
        foreign = sorted(set(positions) - self._held)
        if foreign:
            raise Aborted(
                f"Not committed: {_names(foreign)} moved to another reader of group {self._group!r}; it goes on there"
            )
        return [Place(at.topic, at.partition, new.offset, new.metadata) for at, new in positions.items()]

    # ---- reading

    def _take(self, max_records: int, wait: float) -> Batch:
        """One look. `consume` alone would wait for a full batch or the time-out: poll for one, then what is there."""
        first = self.consumer.poll(wait)
        self._moved.clear()
        messages = []
        if first is not None:
            messages = [first, *self.consumer.consume(max_records - 1, 0)] if max_records > 1 else [first]
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if not messages:
            self._connection.check(self.consumer)
            return Batch([])
        self._connection.down_since = None
        if self._moved:
            messages = self._stayed(messages)
        if any(map(Message.error, messages)):
            return self._with_events(messages)
        return Batch(_records(messages))

    def _stayed(self, messages: list[Message]) -> list[Message]:
        """Without the partitions that came or went while these were taken: those that are ours begin anew."""
        for at in {_at(message) for message in messages} & self._moved & self._held:
            self._seek(at, self._starts[at])
        return [message for message in messages if _at(message) not in self._moved]

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
                    at_end.clear()  # TOGETHER: all may have grown since
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end[_at(message)] = message.offset() or 0
                if not self._cooperative:
                    self._ends[_at(message)] = message.offset() or 0
            else:
                self._judge(message, error)
        return Batch(_records(kept), at_end)

    def _ask_again(self) -> None:
        """librdkafka names the end of a partition once; those that have been silent since are made to tell anew."""
        self._asked, self._told = time.monotonic(), False
        ends, self._ends = self._ends, {}
        for place in self.consumer.position(_places(ends)):
            at = TopicPartition(place.topic, place.partition)
            if place.offset <= ends[at]:
                self._seek(at, ends[at])

    def _judge(self, message: Message, error: KafkaError) -> None:
        """What librdkafka does not get over by itself is raised."""
        if error.code() in MISSING_TOPIC:
            raise topic_missing(message.topic() or "?")
        if error.fatal() or error.code() in DENIED:
            raise LogError(f"Reading from {self._connection.bootstrap} failed: {error.str()}")
        log.warning("%s", error.str())

    # ---- rebalancing; librdkafka calls these from within poll and consume

    def _on_assign(self, consumer: Consumer, places: list[Place]) -> None:
        new = {TopicPartition(place.topic, place.partition) for place in places}
        committed = self._committed(new)
        self._moved |= new
        self._held |= new
        self._ends.clear()
        self._starts |= _starts(committed)
        if new and self._listener is not None:
            listener = self._listener
            self._assigning = True
            self._tell(lambda: listener.assigned(committed))
            self._assigning = False
        starts = _places({at: self._starts[at] for at in new})
        consumer.incremental_assign(starts) if self._cooperative else consumer.assign(starts)

    def _on_revoke(self, consumer: Consumer, places: list[Place]) -> None:
        leaving = frozenset(TopicPartition(place.topic, place.partition) for place in places)
        if leaving and self._listener is not None and not self._closing:
            listener = self._listener
            self.moving = True
            self._tell(lambda: listener.revoking(leaving))
            self.moving = False
        self._let_go(consumer, places, leaving)

    def _on_lost(self, consumer: Consumer, places: list[Place]) -> None:
        leaving = frozenset(TopicPartition(place.topic, place.partition) for place in places)
        self._let_go(consumer, places, leaving)
        if self._listener is not None and not self._closing:
            listener = self._listener
            self._tell(lambda: listener.lost(leaving))

    def _let_go(self, consumer: Consumer, places: list[Place], leaving: frozenset[TopicPartition]) -> None:
        self._moved |= leaving
        self._held -= leaving
        self._ends.clear()
        consumer.incremental_unassign(places) if self._cooperative else consumer.unassign()

    def _tell(self, call: Callable[[], None]) -> None:
        """An exception may not pass through librdkafka: it would lose what the consume call had taken."""
        try:
            call()
        except Exception as error:
            self._raised = error

    # ---- positions

    def _committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        wanted = [Place(at.topic, at.partition) for at in partitions]
        if self._group is None or not wanted:
            return {TopicPartition(place.topic, place.partition): None for place in wanted}
        deadline = time.monotonic() + STABLE_LIMIT
        while True:
            try:
                found = self.consumer.committed(wanted, timeout=5)
                failed = next((place.error for place in found if place.error is not None), None)
            except KafkaException as raised:
                failed = error_of(raised)
            if failed is None:
                return {TopicPartition(place.topic, place.partition): _commit(place) for place in found}
            if failed.code() in NO_ANSWER and time.monotonic() > deadline:
                raise self._connection.unreachable(STABLE_LIMIT)
            if failed.code() in DENIED or time.monotonic() > deadline:
                raise LogError(f"The committed positions of group {self._group!r} cannot be read: {failed.str()}")
            time.sleep(0.02)  # an unstable offset is answered at once; do not flood the coordinator

    def _seek(self, at: TopicPartition, offset: int) -> None:
        self._ends.pop(at, None)
        deadline = time.monotonic() + SEEK_LIMIT
        while True:
            try:
                return self.consumer.seek(Place(at.topic, at.partition, offset))
            except KafkaException as raised:  # _STATE: assigned a moment ago, its fetcher has not begun
                if error_of(raised).code() != KafkaError._STATE or time.monotonic() > deadline:
                    raise LogError(f"{_names([at])} cannot be read from {offset}: {error_of(raised).str()}") from None
                time.sleep(0.005)


def _settings(group: str | None, instance: str, cooperative: bool) -> dict[str, object]:
    return {
        "group.id": group or NO_GROUP,
        "client.id": instance or "tailrace",
        "partition.assignment.strategy": "cooperative-sticky" if cooperative else "range",
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 2_000,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        # A fetch is answered as soon as there is something; an idle one must not delay partitions that are assigned
        # later.
        "fetch.wait.max.ms": 5 if group else 100,
        "fetch.queue.backoff.ms": 2,  # the default second stalls a fast reader
        "max.partition.fetch.bytes": 262_144,  # catching up, partitions come in turns, none far ahead of the others
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 65_536,
    }


def _records(messages: list[Any]) -> list[Record]:
    """0.15 us a record; most topics have no headers."""
    if any(map(Message.headers, messages)):
        return [
            Record(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), tuple(m.headers() or ()))
            for m in messages
        ]
    return [Record(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value()) for m in messages]


def _at(message: Any) -> TopicPartition:
    return TopicPartition(message.topic(), message.partition())


def _commit(place: Place) -> Committed | None:
    return None if place.offset == OFFSET_INVALID else Committed(place.offset, place.metadata or "")


def _starts(committed: Mapping[TopicPartition, Committed | None]) -> dict[TopicPartition, int]:
    return {at: known.offset if known else OFFSET_BEGINNING for at, known in committed.items()}


def _places(positions: Mapping[TopicPartition, int]) -> list[Place]:
    return [Place(at.topic, at.partition, offset) for at, offset in positions.items()]


def _names(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(f"{at.topic}[{at.partition}]" for at in partitions)
