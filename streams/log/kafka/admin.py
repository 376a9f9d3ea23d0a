"""Administration of Kafka by kafka-python: topics, positions, committed positions of groups, transactions."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from tailrace.streams.log.base import Committed, LogError, Topic, TopicPartition
from tailrace.streams.log.kafka.client import BATCH_BYTES, CONNECT_S, DOWN_S, Connection
from tailrace.streams.log.kafka.client_log import route_kafka_python
from tailrace.streams.log.kafka.errors import topic_error
from tailrace.streams.log.kafka.options import admin_options

T = TypeVar("T")
RECORD_OVERHEAD = 1_024  # bytes that a record's batch, key and headers may add to `max_record_bytes`
LIMIT = "max.message.bytes"  # configuration of a topic: the largest batch, as it was compressed
DEFAULT_LIMIT = 1_048_588  # of `max.message.bytes`
TOPIC_EXISTS = 36  # error code of the protocol
_SEGMENT_BYTES = 64 << 20  # of a compacted topic: superseded records that a reader may have to read
_TOMBSTONES_MS = 3_600_000  # longer than any live reader is behind


def any_listens(addresses: Sequence[str]) -> bool:
    """True if one of these "host:port" accepts connections within CONNECT_S seconds.

    kafka-python leaks the sockets of a bootstrap that fails, so it is not started before.
    """
    deadline = time.monotonic() + CONNECT_S
    while True:
        for host, _, port in (address.rpartition(":") for address in addresses):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            except OSError:
                continue
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


class KafkaAdmin:
    """The administrative half of `log.kafka.log.KafkaLog`; safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        route_kafka_python()
        self._connection = connection
        self._lock = threading.Lock()
        self._client: Any = None

    def create(self, topics: Sequence[Topic]) -> None:
        """Create missing topics and wait until all of them have leaders. Raises LogError if the cluster refuses one."""
        wanted = {topic.name: _creation(topic) for topic in topics}
        answer = self._ask(lambda client: client.create_topics(wanted, raise_errors=False))
        for each in answer["topics"]:
            if each["error_code"] not in (0, TOPIC_EXISTS):
                raise LogError(
                    f"Topic {each['name']!r} cannot be created: {each['error_message'] or each['error_code']}"
                )
        self._ask(lambda client: client.wait_for_topics(list(wanted)))

    def topics(self) -> dict[str, int]:
        """Return every topic with its number of partitions, without Kafka's internal topics."""
        described = self._ask(lambda client: client.describe_topics())
        return {each["name"]: len(each["partitions"]) for each in described if not each["is_internal"]}

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic; 0 when it does not exist."""
        return len(self._ask(lambda client: client.describe_topics([topic]))[0]["partitions"])

    def record_limit(self, topic: str) -> int:
        """Return the bytes of key, value and headers that a record may have. Raises TopicMissing.

        Where the cluster does not tell, it is Kafka's default.
        """
        from kafka.admin import ConfigResource

        if not self.partitions(topic):
            raise topic_error(topic)
        resource = ConfigResource("TOPIC", topic, [LIMIT])
        try:
            found = self._ask(lambda client: client.describe_configs([resource], config_filter="all"))
        except LogError as error:
            if type(error) is not LogError:  # unreachable: no answer is not a refusal
                raise
            return DEFAULT_LIMIT - RECORD_OVERHEAD
        return int(found["topic"][topic][LIMIT]["value"]) - RECORD_OVERHEAD

    def begin_positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the offset of the oldest record kept, by partition. Raises TopicMissing."""
        return self._positions(topic, -2)

    def end_positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the last stable offset, by partition. Raises TopicMissing."""
        return self._positions(topic, -1)

    def _positions(self, topic: str, when: int) -> dict[TopicPartition, int]:
        from kafka import IsolationLevel
        from kafka import TopicPartition as Place

        count = self.partitions(topic)
        if not count:
            raise topic_error(topic)
        asked = {Place(topic, partition): when for partition in range(count)}
        offsets = self._ask(lambda client: client.list_partition_offsets(asked, IsolationLevel.READ_COMMITTED))
        return {TopicPartition(topic, at.partition): max(0, known.offset) for at, known in offsets.items()}

    def committed(self, group: str, topics: Iterable[str]) -> dict[TopicPartition, Committed]:
        """Return a group's committed positions on these topics."""
        wanted = set(topics)
        offsets = self._ask(lambda client: client.list_group_offsets(group))[group]
        return {
            TopicPartition(at.topic, at.partition): Committed(
                known.offset, known.metadata.rstrip("\0")
            )  # confluent-kafka commits a C string
            for at, known in offsets.items()
            if at.topic in wanted and known.offset >= 0
        }

    def transaction_timeout_ms(self, name: str) -> int | None:
        """Return the transaction time-out of the newest producer of a transactional.id.

        None where the cluster does not tell: brokers before Kafka 3.0 cannot, others may refuse.
        """
        try:
            return int(self._ask(lambda client: client.describe_transactions([name]))[name].transaction_timeout_ms)
        except LogError as error:
            if type(error) is not LogError:  # unreachable: no answer is not a refusal
                raise
            return None

    def close(self) -> None:
        """Free the connection."""
        with self._lock:
            self._drop_client()

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Return the result of a request, repeated if it can succeed soon, as while leaders are elected.

        Raises Unreachable, and LogError for a refusal.
        """
        from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, UnknownBrokerIdError

        deadline = time.monotonic() + DOWN_S
        with self._lock:
            while True:
                self._client = self._client or self._open()
                try:
                    return question(self._client)
                except KafkaError as error:
                    self._drop_client()  # it would continue to ask the coordinator that is gone
                    if (error.retriable or isinstance(error, UnknownBrokerIdError)) and time.monotonic() < deadline:
                        time.sleep(0.1)
                    elif isinstance(error, KafkaConnectionError | KafkaTimeoutError):
                        raise self._connection.unreachable(DOWN_S, str(error)) from None
                    else:
                        raise LogError(f"Kafka at {self._connection.bootstrap} refused: {error}") from error

    def _open(self) -> Any:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        if not any_listens(self._connection.bootstrap.split(",")):
            raise self._connection.unreachable(CONNECT_S)
        milliseconds = int(CONNECT_S * 1_000)
        try:
            return KafkaAdminClient(
                bootstrap_servers=self._connection.bootstrap.split(","),
                client_id="tailrace-admin",
                bootstrap_timeout_ms=milliseconds,
                request_timeout_ms=milliseconds,
                **admin_options(self._connection.options),
            )
        except KafkaError as error:
            raise self._cause(error) from error

    def _cause(self, error: Exception) -> LogError:
        """Return the exception for a failed bootstrap. librdkafka is asked too, because it names failures of TLS."""
        try:
            self._connection.await_cluster(self._connection.producer({"client.id": "tailrace-admin"}))
        except LogError as failure:
            return failure
        return LogError(f"Kafka at {self._connection.bootstrap} refused administration: {error}")

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _creation(topic: Topic) -> dict[str, object]:
    configs = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        LIMIT: str(max(topic.max_record_bytes, BATCH_BYTES) + RECORD_OVERHEAD),
    }
    if topic.compacted:  # brokers clean no segment that is written to, and by default fill one up to a gigabyte
        configs |= {"segment.bytes": str(_SEGMENT_BYTES), "delete.retention.ms": str(_TOMBSTONES_MS)}
    elif topic.retention_s is not None:  # else the cluster's default applies
        configs["retention.ms"] = str(int(topic.retention_s * 1_000))
    replication = -1 if topic.replication is None else topic.replication
    return {"num_partitions": topic.partitions, "replication_factor": replication, "configs": configs}
