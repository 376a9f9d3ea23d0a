"""Administration of Kafka by kafka-python: topics, positions, what groups have committed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tailrace.streams.log.base import Committed, LogError, Topic, TopicPartition
from tailrace.streams.log.kafka.client import DOWN_LIMIT, PATIENCE, Connection, topic_missing
from tailrace.streams.log.kafka.writer import BATCH_BYTES

T = TypeVar("T")
RECORD_OVERHEAD = 1_024  # bytes that a record's batch, key and headers may add to `max_record_bytes`
TOPIC_EXISTS = 36  # error code of the protocol
_SEGMENT_BYTES = 64 << 20  # of a compacted topic: what a reader may have to read that is superseded
_TOMBSTONES_MS = 3_600_000  # longer than any live reader is behind

# librdkafka's names of the options that administration needs too, and kafka-python's
NAMES = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
}


def admin_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The options in kafka-python's words. Those that concern only readers and writers are left out."""
    mapped: dict[str, Any] = {NAMES[name]: value for name, value in options.items() if name in NAMES}
    if "security_protocol" in mapped:
        mapped["security_protocol"] = mapped["security_protocol"].upper()
    if options.get("ssl.endpoint.identification.algorithm") == "none":
        mapped["ssl_check_hostname"] = False
    return mapped


def any_listens(addresses: Sequence[str]) -> bool:
    """Whether one of these "host:port" accepts connections within PATIENCE seconds; else kafka-python leaks."""
    deadline = time.monotonic() + PATIENCE
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
    """The administrative half of `tailrace.streams.log.kafka.log.KafkaLog`; safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._client: Any = None

    def create(self, topics: Sequence[Topic]) -> None:
        """Create what does not exist and wait until all of it has leaders."""
        wanted = {topic.name: _creation(topic) for topic in topics}
        answer = self._ask(lambda client: client.create_topics(wanted, raise_errors=False))
        for each in answer["topics"]:
            if each["error_code"] not in (0, TOPIC_EXISTS):
                raise LogError(
                    f"Topic {each['name']!r} cannot be created: {each['error_message'] or each['error_code']}"
                )
        self._ask(lambda client: client.wait_for_topics(list(wanted)))

    def topics(self) -> dict[str, int]:
        """Every topic but the internal ones, with its number of partitions."""
        found = self._ask(lambda client: client.describe_topics())
        return {each["name"]: len(each["partitions"]) for each in found if not each["is_internal"]}

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        return len(self._ask(lambda client: client.describe_topics([topic]))[0]["partitions"])

    def positions(self, topic: str, when: int) -> dict[TopicPartition, int | None]:
        """The position at `when`, per partition: unix milliseconds, -1 the end, -2 the start. Raises TopicMissing."""
        from kafka import IsolationLevel
        from kafka import TopicPartition as Place

        count = self.partitions(topic)
        if not count:
            raise topic_missing(topic)
        asked = {Place(topic, partition): when for partition in range(count)}
        found = self._ask(lambda client: client.list_partition_offsets(asked, IsolationLevel.READ_COMMITTED))
        return {
            TopicPartition(topic, at.partition): known.offset if known.offset >= 0 else None
            for at, known in found.items()
        }

    def committed(self, group: str, topics: Iterable[str]) -> dict[TopicPartition, Committed]:
        """What a group has committed on these topics."""
        found = self._ask(lambda client: client.list_group_offsets(group))[group]
        return {
            TopicPartition(at.topic, at.partition): Committed(
                known.offset, known.metadata.rstrip("\0")
            )  # confluent-kafka commits a C string
            for at, known in found.items()
            if at.topic in set(topics) and known.offset >= 0
        }

    def close(self) -> None:
        """Free the connection."""
        with self._lock:
            self._forget()

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Asks again what the cluster will soon be able to answer, as when a broker died and leaders are elected.

        Raises Unreachable, and LogError for a refusal.
        """
        from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, UnknownBrokerIdError

        deadline = time.monotonic() + DOWN_LIMIT
        with self._lock:
            while True:
                self._client = self._client or self._open()
                try:
                    return question(self._client)
                except KafkaError as error:
                    self._forget()  # it would go on asking the coordinator that is gone
                    if (error.retriable or isinstance(error, UnknownBrokerIdError)) and time.monotonic() < deadline:
                        time.sleep(0.1)
                    elif isinstance(error, KafkaConnectionError | KafkaTimeoutError):
                        raise self._connection.unreachable(DOWN_LIMIT) from None
                    else:
                        raise LogError(f"Kafka at {self._connection.bootstrap} refused: {error}") from error

    def _open(self) -> Any:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

        if not any_listens(self._connection.bootstrap.split(",")):
            raise self._connection.unreachable(PATIENCE)
        milliseconds = int(PATIENCE * 1_000)
        try:
            return KafkaAdminClient(
                bootstrap_servers=self._connection.bootstrap.split(","),
                client_id="tailrace-admin",
                bootstrap_timeout_ms=milliseconds,
                request_timeout_ms=milliseconds,
                **admin_options(self._connection.options),
            )
        except (KafkaConnectionError, KafkaTimeoutError):
            raise self._connection.unreachable(PATIENCE) from None
        except KafkaError as error:
            raise LogError(f"Kafka at {self._connection.bootstrap} refused: {error}") from error

    def _forget(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _creation(topic: Topic) -> dict[str, object]:
    configs = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "max.message.bytes": str(max(topic.max_record_bytes, BATCH_BYTES) + RECORD_OVERHEAD),
    }
    if topic.compacted:  # brokers clean no segment that is written to, and by default fill one up to a gigabyte
        configs |= {"segment.bytes": str(_SEGMENT_BYTES), "delete.retention.ms": str(_TOMBSTONES_MS)}
    else:
        configs["retention.ms"] = "-1" if topic.retention_s is None else str(int(topic.retention_s * 1_000))
    replication = -1 if topic.replication is None else topic.replication
    return {"num_partitions": topic.partitions, "replication_factor": replication, "configs": configs}
