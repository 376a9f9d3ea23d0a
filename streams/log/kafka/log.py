"""The log on an Apache Kafka cluster: confluent-kafka carries the records, kafka-python administers.

client      settings, reachability          reader    batches            admin        topics, positions
options     translation for both clients    rebalance table of phases    errors       code -> kind
client_log  log lines of both clients       writer    transactions       producer     calls on librdkafka
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from tailrace.streams.log.base import (
    Committed,
    Delivery,
    Log,
    Reader,
    Subscription,
    Topic,
    TopicPartition,
    Unreachable,
    Writer,
)
from tailrace.streams.log.kafka.admin import KafkaAdmin
from tailrace.streams.log.kafka.client import Connection
from tailrace.streams.log.kafka.errors import topic_error
from tailrace.streams.log.kafka.options import check_options
from tailrace.streams.log.kafka.reader import KafkaReader
from tailrace.streams.log.kafka.writer import KafkaWriter
from tailrace.streams.log.records import Record

SCAN_RECORDS = 4_096
SCAN_READ_S = 1.0  # one read of a scan; the reader notices a broker that is gone
SCAN_SILENCE_S = 60.0  # without a record or an end; longer than a transaction can stay open


class KafkaLog(Log):
    """Implements `log.base.Log`. `options` are librdkafka's properties: `security.protocol`, `sasl.*`, `ssl.*`.

    Raises BadOption for options that do not work for both clients; see `options`.
    """

    def __init__(self, bootstrap: str, options: Mapping[str, str] | None = None) -> None:
        self._bootstrap, self._options = bootstrap, dict(options or {})
        check_options(self._options)
        self._admin = KafkaAdmin(self._connection())

    def create(self, topics: Sequence[Topic]) -> None:
        """Create topics that do not exist. Raises Unreachable, LogError when the cluster refuses."""
        self._admin.create(topics)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic; 0 when it does not exist."""
        return self._admin.partitions(topic)

    def topics(self) -> dict[str, int]:
        """Return every topic with its number of partitions, without Kafka's internal topics."""
        return self._admin.topics()

    def record_limit(self, topic: str) -> int:
        """Return the topic's `max.message.bytes`, less what a batch and its record add. Raises TopicMissing."""
        return self._admin.record_limit(topic)

    def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """Return the partition that writers with Kafka's usual partitioner choose for a key. Raises TopicMissing."""
        from kafka.partitioner.default import murmur2

        count = self.partitions(topic)
        if not count:
            raise topic_error(topic)
        return TopicPartition(topic, (murmur2(key) & 0x7FFF_FFFF) % count)

    def begin_positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the offset of the oldest record kept, by partition. Raises TopicMissing."""
        return self._admin.begin_positions(topic)

    def end_positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the last stable offset, by partition: every record before it is committed or aborted.

        Transactions leave control records, so it can lie above the newest record's offset plus one.
        """
        return self._admin.end_positions(topic)

    def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, Committed]:
        """Return a group's committed positions on these topics."""
        return self._admin.committed(group, topics)

    def scan(self, partition: TopicPartition, start: int, end: int) -> Iterator[list[Record]]:
        """Yield the committed records of one partition with start <= offset < end, in batches.

        Ends at a record behind the range or at the partition's end, so that control records cannot stall it.
        Raises Unreachable when nothing comes for a minute.
        """
        if start >= end:
            return
        reader = KafkaReader(self._connection(), Subscription((partition.topic,)))
        try:
            reader.take([partition], {partition: start})
            done, heard = False, time.monotonic()
            while not done:
                batch = reader.read(SCAN_RECORDS, SCAN_READ_S)
                if batch.records or batch.at_end:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SCAN_SILENCE_S:
                    raise Unreachable(
                        f"{partition.topic}[{partition.partition}] gave nothing for {SCAN_SILENCE_S:.0f} s between "
                        f"{start} and {end}: is its leader up? Check with: tailrace doctor"
                    )
                wanted = [record for record in batch.records if record.offset < end]
                last = batch.records[-1].offset if batch.records else start
                done = last >= end - 1 or bool(batch.at_end)
                if wanted:
                    yield wanted
        finally:
            reader.close()

    def subscribe(self, subscription: Subscription) -> Reader:
        """Open a reader; see `log.base.Log.reader`."""
        reader = KafkaReader(self._connection(), subscription)
        try:
            if subscription.membership:
                reader.join(subscription.topics)
            else:
                reader.take_all(subscription.topics, subscription.start)
        except BaseException:
            reader.close()
            raise
        return reader

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Writer:
        """Open a writer; with EXACTLY_ONCE `name` is its transactional.id."""
        if delivery is Delivery.EXACTLY_ONCE and not name:
            raise ValueError("an exactly-once writer needs a name")
        return KafkaWriter(self._connection(), name, delivery, self._admin)

    def reopen(self) -> KafkaLog:
        """Connect to the same cluster again; see `tailrace.streams.log.base.Log`."""
        return KafkaLog(self._bootstrap, self._options)

    def close(self) -> None:
        """Free the administrative connection."""
        self._admin.close()

    def _connection(self) -> Connection:
        """Make one connection for each client, because it remembers that client's complaints."""
        return Connection(self._bootstrap, self._options)
