"""Writes to Kafka: one idempotent producer, with transactions for EXACTLY_ONCE (KIP-98; positions go along, KIP-447).

Steps of a commit; a crash between any two leaves either everything or nothing to a read_committed reader:

    1. caller       takes the group's generation: a reader that has been expelled since cannot commit
    2. background   the positions join the transaction (TxnOffsetCommit)
    3. background   the records written reach the broker
    4. background   the transaction is ended (EndTxn); from here on all of it is visible
    5. caller       the next commit or flush waits for 2 to 4 and raises their error; records written meanwhile wait
                    in memory (up to a limit, where write waits too), because a producer has one transaction

At least once: write does not wait in memory; step 3, then an ordinary offset commit.

After an error that leaves the outcome unknown the producer is replaced by a new one of the same transactional.id, with
which the broker completes or aborts the open transaction (KIP-98), and the caller re-reads from the committed
positions. Opening it would fence a newer writer of that name, so the broker is asked first which writer is the last.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place

from tailrace.streams.log.base import WAITING_RECORDS, Aborted, Delivery, Fenced, LogError, Positions, Reader, TooLarge
from tailrace.streams.log.kafka.admin import KafkaAdmin
from tailrace.streams.log.kafka.client import Connection, log
from tailrace.streams.log.kafka.errors import ErrorKind, classify, error_of, write_error
from tailrace.streams.log.kafka.producer import TRANSACTION_S, deliver, settings, write_record
from tailrace.streams.log.kafka.reader import KafkaReader
from tailrace.streams.log.records import Out

T = TypeVar("T")
COMMIT_S = 30.0  # a commit is tried again for so long before its outcome counts as unknown
_STAMPS_MS = 1_000  # range of the random part of a writer's transaction time-out
_stamps = random.Random()  # not the module's generator, which a user may have seeded


class KafkaWriter:
    """Implements `log.base.Writer`. Made by `KafkaLog.writer`.

    Each producer has a transaction time-out of its own, drawn at random. The broker tells the time-out of the newest
    producer of a name, so a writer whose producer failed can see whether another writer has taken its name meanwhile.
    """

    def __init__(self, connection: Connection, name: str, delivery: Delivery, admin: KafkaAdmin) -> None:
        self._connection, self._name, self._admin = connection, name, admin
        self._exactly_once = delivery is Delivery.EXACTLY_ONCE
        self._known_topics: set[str] = set()
        self._failure: KafkaError | None = None  # of the first record that was not delivered
        self._begun = False  # a transaction is open
        self._fenced = False  # final
        self._stamps_ms: set[int] = set()  # transaction time-outs of its producers; empty without transactions
        self._pending: Future[None] | None = None
        self._waiting: list[Out] = []  # written while the last transaction was being ended
        self._producer = self._open()
        self._background = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{name}")

    # ---- the port

    def write(self, records: Sequence[Out]) -> None:
        """Add records to the open transaction. Returns when librdkafka has taken them, not when they are delivered.

        While the last transaction is still being ended they wait here, so that the caller can continue scoring.
        """
        if self._exactly_once and self.committing and len(self._waiting) < WAITING_RECORDS:
            self._waiting += records
            return
        self._settle()
        waiting, self._waiting = self._waiting, []
        self._send([*waiting, *records])

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        """End the transaction; the module's docstring says which steps are done when this returns."""
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
            raise self._failed(error_of(raised)) from None
        if self._exactly_once:
            self._pending = self._background.submit(_end_transaction, self._producer, offsets, group)
        else:
            self._pending = self._background.submit(self._deliver, offsets, consumer)
        if isinstance(reader, KafkaReader) and reader.revoking:
            self._settle()  # the partitions leave when the listener returns

    @property
    def committing(self) -> bool:
        """True while the background is busy with a commit."""
        return self._pending is not None and not self._pending.done()

    def flush(self) -> None:
        """Wait until the last commit is durable and, at least once, every record written too."""
        self._settle()
        if not self._exactly_once:
            self._pending = self._background.submit(self._deliver)
            self._settle()

    def abort(self) -> None:
        """Drop everything since the last commit. At least once, records already sent stay written."""
        self._waiting = []
        if self._fenced:
            return
        try:
            self._settle()
        except (Aborted, TooLarge):
            return  # already dropped
        try:
            if self._begun:
                _retried(lambda: self._producer.abort_transaction(5))
                self._begun = False
            elif len(self._producer):
                self._replace_producer()
        except KafkaException as raised:
            if isinstance(error := self._failed(error_of(raised)), Fenced):
                raise error from None

    def close(self) -> None:
        """Abort the open transaction and free the connection."""
        self._background.shutdown()  # waits for a commit under way
        committed = self._pending is not None and self._pending.exception() is None
        if self._begun and not committed and not self._fenced:
            try:
                self._producer.abort_transaction(5)
            except KafkaException as raised:  # the broker does it when the transaction times out
                log.info("closing a writer", writer=self._name, error=error_of(raised).str())
        del self._producer

    # ---- the producer

    def _open(self) -> Producer:
        stamp_ms = self._new_stamp_ms() if self._exactly_once else 0
        producer = self._connection.producer(settings(self._name, stamp_ms, self._on_delivery))
        self._connection.await_cluster(producer)
        if self._exactly_once:
            self._stamps_ms.add(stamp_ms)
            try:
                _retried(lambda: producer.init_transactions(5))
            except KafkaException as raised:
                error = error_of(raised)
                if error.retriable() or classify(error) is ErrorKind.NO_ANSWER:
                    raise self._connection.unreachable(COMMIT_S, error.str()) from None
                raise LogError(f"Writer {self._name!r} cannot use transactions: {error.str()}") from None
            self._stamps_ms = {stamp_ms}
        return producer

    def _new_stamp_ms(self) -> int:
        """Draw a transaction time-out that differs from that of the writer before."""
        before = self._admin.transaction_timeout_ms(self._name)
        while (stamp_ms := int(TRANSACTION_S * 1_000) + _stamps.randrange(_STAMPS_MS)) == before:
            pass
        return stamp_ms

    def _replace_producer(self) -> None:
        """Replace the producer and drop its records. The new producer ends the open transaction. Raises Fenced."""
        if self._exactly_once and self._admin.transaction_timeout_ms(self._name) not in self._stamps_ms:
            self._fenced = True
            raise self._fenced_error()
        self._producer = self._open()
        self._begun, self._failure, self._waiting = False, None, []

    def _begin(self) -> None:
        if self._exactly_once and not self._begun:
            self._producer.begin_transaction()
            self._begun = True

    def _send(self, records: Sequence[Out]) -> None:
        for topic in {record.topic for record in records} - self._known_topics:
            self._known_topics |= self._connection.await_topics(self._producer, [topic]).keys()
        producer = self._producer
        try:
            self._begin()
            for record in records:
                try:
                    write_record(producer, record)
                except BufferError:
                    self._make_room()
                    write_record(producer, record)
            producer.poll(0)
        except KafkaException as raised:
            raise self._failed(error_of(raised)) from None
        if self._failure is not None:
            raise self._failed(self._failure)

    def _make_room(self) -> None:
        deadline = time.monotonic() + COMMIT_S
        while self._producer.poll(0.1) == 0 and self._failure is None and time.monotonic() < deadline:
            self._connection.check(self._producer)

    def _deliver(self, offsets: Sequence[Place] = (), consumer: Consumer | None = None) -> None:
        """At least once: wait for every acknowledgement, then commit the positions. Raises KafkaException."""
        deliver(self._producer, COMMIT_S, lambda: self._failure)
        if consumer is not None and offsets:
            for place in _retried(lambda: consumer.commit(offsets=list(offsets), asynchronous=False)) or ():
                if place.error is not None:
                    raise KafkaException(place.error)

    def _on_delivery(self, error: KafkaError, _: Message) -> None:
        if classify(error) is not ErrorKind.DROPPED:
            self._failure = self._failure or error

    # ---- outcomes

    def _settle(self) -> None:
        """Wait for the commit under way. Raises Aborted, Fenced."""
        if self._fenced:
            raise self._fenced_error()
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except KafkaException as raised:
            raise self._failed(error_of(raised)) from None
        self._begun = False

    def _failed(self, error: KafkaError) -> LogError:
        """Drop everything since the last commit, and return the exception to raise for this error."""
        if classify(error) is ErrorKind.FATAL and self._exactly_once:
            error = self._fatal_cause() or error
        try:
            self._replace_producer()
        except Fenced as fenced:
            return fenced
        return write_error(classify(error), error, self._name) or Aborted(f"Not committed: {error.str()}")

    def _fenced_error(self) -> Fenced:
        return Fenced(f"Another process writes as {self._name!r}; this one must end")

    def _fatal_cause(self) -> KafkaError | None:
        """Return the cause of a producer's fatal error, which transactional calls report and others do not."""
        try:
            self._producer.begin_transaction()
        except KafkaException as raised:
            return error_of(raised)
        return None


def _of_reader(positions: Positions | None, reader: Reader | None) -> tuple[list[Place], Consumer | None]:
    """Raises Aborted when the reader does not hold one of the partitions."""
    if not positions:
        return [], None
    if not isinstance(reader, KafkaReader):
        raise TypeError("positions are committed for a reader of the same log")
    return reader.offsets(positions), reader.consumer


def _end_transaction(producer: Producer, offsets: list[Place], group: object) -> None:
    if offsets:
        _retried(lambda: producer.send_offsets_to_transaction(offsets, group, 10))
    _retried(lambda: producer.commit_transaction(10))


def _retried(call: Callable[[], T]) -> T:
    """Repeat a call while its error is retriable, for COMMIT_S seconds; the call itself waits for an answer."""
    deadline = time.monotonic() + COMMIT_S
    while True:
        try:
            return call()
        except KafkaException as raised:
            if not error_of(raised).retriable() or time.monotonic() > deadline:
                raise
