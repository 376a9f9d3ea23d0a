"""Writes to Kafka: one idempotent producer, with transactions for EXACTLY_ONCE (KIP-98; positions go along, KIP-447).

A commit, step by step; a crash between any two leaves either everything or nothing to a read_committed reader:

    1. caller       the group's generation is taken: a reader that has been expelled since cannot commit
    2. background   the positions join the transaction (TxnOffsetCommit)
    3. background   the records written reach the broker
    4. background   the transaction is ended (EndTxn); from here on all of it is visible
    5. caller       the next commit or flush waits for 2 to 4 and raises what they raised; records written meanwhile
                    wait in memory (up to a limit, where write waits too), because a producer has one transaction

At least once, write waits too: 3, then an ordinary offset commit.

After an error that leaves the outcome unknown the producer is thrown away: the next one of the same transactional.id
makes the broker settle the matter (KIP-98), and the caller re-reads from the committed positions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place

from tailrace.streams.log.base import WAITING_RECORDS, Aborted, Delivery, Fenced, LogError, Positions, Reader, TooLarge
from tailrace.streams.log.kafka.client import CHATTER, MISSING_TOPIC, Connection, error_of, log, topic_missing
from tailrace.streams.log.kafka.reader import KafkaReader
from tailrace.streams.log.records import Out

T = TypeVar("T")
BATCH_BYTES = 262_144  # largest batch of records; topics that Tailrace creates take at least this
TRANSACTION_LIMIT = 15.0  # seconds after which the broker aborts a silent writer's transaction
COMMIT_LIMIT = 30.0  # seconds that a commit is tried again before its outcome counts as unknown
FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
DENIED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED})


class KafkaWriter:
    """Implements `tailrace.streams.log.base.Writer`. Made by `KafkaLog.writer`."""

    def __init__(self, connection: Connection, name: str, delivery: Delivery) -> None:
        self._connection, self._name = connection, name
        self._exactly_once = delivery is Delivery.EXACTLY_ONCE
        self._known: set[str] = set()  # topics seen to exist
        self._failure: KafkaError | None = None  # of the first record that was not delivered
        self._begun = False  # a transaction is open
        self._began_at = 0.0
        self._fenced = False  # for good
        self._pending: Future[None] | None = None
        self._waiting: list[Out] = []  # written while the last transaction was being ended
        self._producer = self._open()
        self._background = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{name}")

    # ---- the port

    def write(self, records: Sequence[Out]) -> None:
        """Add records to the open transaction. Returns when librdkafka has taken them, not when they are delivered.

        While the last transaction is still being ended they wait here, so that the caller can go on scoring.
        """
        if self._exactly_once and self.committing and len(self._waiting) < WAITING_RECORDS:
            self._waiting += records
            return
        self._settle()
        waiting, self._waiting = self._waiting, []
        self._send([*waiting, *records])

    def _send(self, records: Sequence[Out]) -> None:
        for topic in {record.topic for record in records} - self._known:
            self._known |= self._connection.await_topics(self._producer, [topic]).keys()
        try:
            self._begin()
            for record in records:
                try:
                    self._produce(record)
                except BufferError:
                    self._make_room()
                    self._produce(record)
            self._producer.poll(0)
        except KafkaException as raised:
            raise self._undone(error_of(raised)) from None
        if self._failure is not None:
            raise self._undone(self._failure)

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        """End the transaction; see the module's docstring for what is done when this returns."""
        self._settle()
        if self._waiting:
            self.write(())
        try:
            offsets, consumer = _of_reader(positions, reader)
        except Aborted:
            self.abort()
            raise
        if not (self._begun or offsets or len(self._producer)):
            return
        try:
            self._begin()
            group = consumer.consumer_group_metadata() if consumer and self._exactly_once else None
        except KafkaException as raised:
            raise self._undone(error_of(raised)) from None
        if self._exactly_once:
            self._pending = self._background.submit(_end_transaction, self._producer, offsets, group)
        else:
            self._pending = self._background.submit(self._deliver, offsets, consumer)
        if isinstance(reader, KafkaReader) and reader.moving:
            self._settle()  # the partitions leave when the listener returns

    @property
    def committing(self) -> bool:
        """Whether the background is still busy with a commit."""
        return self._pending is not None and not self._pending.done()

    def flush(self) -> None:
        """Wait until the last commit is durable and, at least once, every record written too."""
        self._settle()
        if not self._exactly_once:
            self._pending = self._background.submit(self._deliver)
            self._settle()

    def abort(self) -> None:
        """Drop everything since the last commit. At least once, what has already been sent stays written."""
        self._waiting = []
        if self._fenced:
            return
        try:
            self._settle()
        except Aborted:
            return  # no news to a caller who aborts
        try:
            if self._begun:
                _patiently(lambda: self._producer.abort_transaction(5))
                self._begun = False
            elif len(self._producer):
                self._renew()
        except KafkaException as raised:
            if isinstance(outcome := self._undone(error_of(raised)), Fenced):
                raise outcome from None

    def close(self) -> None:
        """Abort what is open and free the connection."""
        self._background.shutdown()  # waits for a commit under way
        committed = self._pending is not None and self._pending.exception() is None
        if self._begun and not committed and not self._fenced:
            try:
                self._producer.abort_transaction(5)
            except KafkaException as raised:  # the broker does it when the transaction times out
                log.info("while closing writer %r: %s", self._name, error_of(raised).str())
        del self._producer

    # ---- the producer

    def _open(self) -> Producer:
        transactions = {"transactional.id": self._name, "transaction.timeout.ms": int(TRANSACTION_LIMIT * 1_000)}
        settings: dict[str, object] = {
            "client.id": self._name or "tailrace",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # the Java clients' choice: equal keys meet (librdkafka's is CRC32)
            "linger.ms": 1 if not self._exactly_once else 5,  # exactly once, a commit sends what has not been sent
            # librdkafka doubles the pause with each try, up to a second: long beside a commit interval. A precaution:
            # in the traces that were looked at nothing was retried, and no effect was measured.
            "retry.backoff.ms": 5,
            "retry.backoff.max.ms": 20,
            "batch.size": BATCH_BYTES,
            "message.max.bytes": 67_108_864,  # the topic decides, not the client
            "queue.buffering.max.messages": 1_000_000,
            "message.timeout.ms": int(TRANSACTION_LIMIT * 1_000),
        }
        reports = {"delivery.report.only.error": True, "on_delivery": self._on_delivery}
        settings |= self._connection.settings(writer=True)
        settings |= transactions if self._exactly_once else reports  # a failed record fails its transaction
        producer = Producer(settings, logger=CHATTER)
        self._connection.await_cluster(producer)
        if self._exactly_once:
            try:
                _patiently(lambda: producer.init_transactions(5))
            except KafkaException as raised:
                raise LogError(f"Writer {self._name!r} cannot use transactions: {error_of(raised).str()}") from None
        return producer

    def _begin(self) -> None:
        if self._exactly_once and not self._begun:
            self._producer.begin_transaction()
            self._begun, self._began_at = True, time.monotonic()

    def _produce(self, record: Out) -> None:
        """0.7 us a record; BufferError when the queue is full."""
        partition = -1 if record.partition is None else record.partition
        if record.headers:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                partition,
                timestamp=record.timestamp or 0,
                headers=list(record.headers),
            )
        elif record.timestamp:
            self._producer.produce(record.topic, record.value, record.key, partition, timestamp=record.timestamp)
        else:
            self._producer.produce(record.topic, record.value, record.key, partition)

    def _make_room(self) -> None:
        deadline = time.monotonic() + COMMIT_LIMIT
        while self._producer.poll(0.1) == 0 and self._failure is None and time.monotonic() < deadline:
            self._connection.check(self._producer)

    def _deliver(self, offsets: Sequence[Place] = (), consumer: Consumer | None = None) -> None:
        """At least once: every record is acknowledged, then the positions are committed. Raises KafkaException."""
        try:
            left = self._producer.flush(COMMIT_LIMIT)
        except SystemError:  # confluent-kafka calls on_delivery with the exception of a fatal error already set
            raise KafkaException(KafkaError(KafkaError._FATAL)) from None
        if left or self._failure is not None:
            raise KafkaException(self._failure or KafkaError(KafkaError._MSG_TIMED_OUT))
        if consumer is not None and offsets:
            for place in _patiently(lambda: consumer.commit(offsets=list(offsets), asynchronous=False)) or ():
                if place.error is not None:
                    raise KafkaException(place.error)

    def _on_delivery(self, error: KafkaError, _: Message) -> None:
        if error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._failure = self._failure or error

    # ---- outcomes

    def _settle(self) -> None:
        """Wait for the commit under way. Raises Aborted, Fenced."""
        if self._fenced:
            raise self._replaced()
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except KafkaException as raised:
            raise self._undone(error_of(raised)) from None
        self._begun = False

    def _undone(self, error: KafkaError) -> LogError:
        """What to raise for this error; drops everything since the last commit."""
        if error.code() == KafkaError._FATAL and self._exactly_once:
            error = self._cause_of_death() or error
        expired = time.monotonic() - self._began_at > TRANSACTION_LIMIT  # then it was the broker's clock, not a rival
        if error.code() in FENCED and not expired:
            self._fenced = True
            return self._replaced()
        self._renew()
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return TooLarge("A record is larger than its topic takes: raise its max.message.bytes, or send less")
        if error.code() in MISSING_TOPIC:
            return topic_missing("written to")
        if error.code() == KafkaError.INVALID_TIMESTAMP:
            return LogError(
                "A record's timestamp is further from the broker's clock than its topic takes: correct it, or raise "
                "the topic's message.timestamp.after.max.ms"
            )
        if error.code() in DENIED:
            return LogError(f"Writer {self._name!r} may not write: {error.str()}")
        return Aborted(f"Not committed: {error.str()}")

    def _replaced(self) -> Fenced:
        return Fenced(f"Another process writes as {self._name!r}; this one must end")

    def _cause_of_death(self) -> KafkaError | None:
        """Some calls on a producer that is done for say only that; transactional ones say why."""
        try:
            self._producer.begin_transaction()
        except KafkaException as raised:
            return error_of(raised)
        return None

    def _renew(self) -> None:
        """Throw the producer away, with all that it still held; the new one settles its open transaction.

        Never after a Fenced: that would fence the newer instance in its turn.
        """
        self._producer = self._open()
        self._begun, self._failure, self._waiting = False, None, []


def _of_reader(positions: Positions | None, reader: Reader | None) -> tuple[list[Place], Consumer | None]:
    """Raises Aborted when the reader no longer holds one of the partitions."""
    if not positions:
        return [], None
    if not isinstance(reader, KafkaReader):
        raise TypeError("positions are committed for a reader of the same log")
    return reader.offsets(positions), reader.consumer


def _end_transaction(producer: Producer, offsets: list[Place], group: object) -> None:
    if offsets:
        _patiently(lambda: producer.send_offsets_to_transaction(offsets, group, 10))
    _patiently(lambda: producer.commit_transaction(10))


def _patiently(call: Callable[[], T]) -> T:
    """Try again what librdkafka calls retriable, for COMMIT_LIMIT seconds; the call itself waits for an answer."""
    deadline = time.monotonic() + COMMIT_LIMIT
    while True:
        try:
            return call()
        except KafkaException as raised:
            if not error_of(raised).retriable() or time.monotonic() > deadline:
                raise
