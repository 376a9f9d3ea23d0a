"""The log on an Apache Kafka cluster: confluent-kafka carries the records, kafka-python administers.

kafka_client  settings, reachability      kafka_reader  groups, rebalances, batches
kafka_admin   topics, positions           kafka_writer  transactions, commits in the background
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from tailrace.streams.log.base import (
    Assignment,
    Committed,
    Delivery,
    Reader,
    Sharing,
    Topic,
    TopicPartition,
    Unreachable,
    Writer,
)
from tailrace.streams.log.kafka.admin import KafkaAdmin
from tailrace.streams.log.kafka.client import Connection, topic_missing
from tailrace.streams.log.kafka.reader import KafkaReader
from tailrace.streams.log.kafka.writer import KafkaWriter
from tailrace.streams.log.records import Record

SCAN_RECORDS = 4_096
SCAN_PATIENCE = 1.0  # seconds for one read of a scan; a broker that is gone is noticed by the reader
SCAN_LIMIT = 60.0  # seconds without a record or an end: longer than any transaction may hang


class KafkaLog:
    """Implements `log.base.Log`. `options` are librdkafka's properties: `security.protocol`, `sasl.*`, `ssl.*`."""

    def __init__(self, bootstrap: str, options: Mapping[str, str] | None = None) -> None:
        self._bootstrap, self._options = bootstrap, dict(options or {})
        self._admin = KafkaAdmin(self._connection())

    def create(self, topics: Sequence[Topic]) -> None:
        """Create the topics that do not exist. Raises Unreachable, LogError when the cluster refuses."""
        self._admin.create(topics)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        return self._admin.partitions(topic)

    def topics(self) -> dict[str, int]:
        """Every topic but Kafka's internal ones, with its number of partitions."""
        return self._admin.topics()

    def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """Where writers with Kafka's usual partitioner put a record with this key. Raises TopicMissing."""
        from kafka.partitioner.default import murmur2

        count = self.partitions(topic)
        if not count:
            raise topic_missing(topic)
        return TopicPartition(topic, (murmur2(key) & 0x7FFF_FFFF) % count)

    def begin_positions(self, topic: str) -> dict[TopicPartition, int]:
        """The offset of the oldest record kept, per partition."""
        return {at: offset or 0 for at, offset in self._admin.positions(topic, -2).items()}

    def end_positions(self, topic: str) -> dict[TopicPartition, int]:
        """The position behind the newest committed record: no record of an open transaction lies before it.

        Transactions leave invisible markers, so this can be a few above the newest record's offset plus one.
        """
        return {at: offset or 0 for at, offset in self._admin.positions(topic, -1).items()}

    def positions_at(self, topic: str, time: float) -> dict[TopicPartition, int]:
        """Per partition the first record with a timestamp at or after `time` (unix seconds), or the end."""
        found = self._admin.positions(topic, int(time * 1_000))
        end = self.end_positions(topic)
        return {at: end[at] if offset is None else offset for at, offset in found.items()}

    def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, Committed]:
        """What a group has committed on these topics."""
        return self._admin.committed(group, topics)

    def scan(self, partition: TopicPartition, start: int, end: int) -> Iterator[list[Record]]:
        """All committed records of one partition with start <= offset < end, in batches.

        Ends at a record behind the range or at the partition's end, so the markers of transactions cannot stall it.
        Raises Unreachable when nothing comes for a minute.
        """
        if start >= end:
            return
        reader = KafkaReader(self._connection())
        try:
            reader.take([partition], {partition: start})
            done, heard = False, time.monotonic()
            while not done:
                batch = reader.read(SCAN_RECORDS, SCAN_PATIENCE)
                if batch.records or batch.at_end:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SCAN_LIMIT:
                    raise Unreachable(
                        f"{partition.topic}[{partition.partition}] gave nothing for {SCAN_LIMIT:.0f} s between {start} "
                        f"and {end}: is its leader up? Check with: tailrace doctor"
                    )
                wanted = [record for record in batch.records if record.offset < end]
                last = batch.records[-1].offset if batch.records else start
                done = last >= end - 1 or bool(batch.at_end)
                if wanted:
                    yield wanted
        finally:
            reader.close()

    def reader(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        instance: str = "",
        sharing: Sharing = Sharing.SPREAD,
        listener: Assignment | None = None,
        alone: bool = False,
        start: Mapping[TopicPartition, int] | None = None,
    ) -> Reader:
        """A reader of these topics; see `tailrace.streams.log.base.Log.reader`."""
        reader = KafkaReader(self._connection(), group, instance, sharing, listener)
        try:
            if group is None or alone:
                reader.take_all(topics, start)
            else:
                reader.join(topics)
        except BaseException:
            reader.close()
            raise
        return reader

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Writer:
        """A writer; with EXACTLY_ONCE `name` is its transactional.id."""
        if delivery is Delivery.EXACTLY_ONCE and not name:
            raise ValueError("an exactly-once writer needs a name")
        return KafkaWriter(self._connection(), name, delivery)

    def reopen(self) -> KafkaLog:
        """Connect to the same cluster again; see `tailrace.streams.log.base.Log`."""
        return KafkaLog(self._bootstrap, self._options)

    def close(self) -> None:
        """Free the administrative connection."""
        self._admin.close()

    def _connection(self) -> Connection:
        """A new one for each client: it remembers what that client heard."""
        return Connection(self._bootstrap, self._options)
