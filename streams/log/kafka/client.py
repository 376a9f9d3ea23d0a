"""Base of Kafka readers, writers and administration: settings, reachability, and the cause of a failed connection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from tailrace.streams.log.base import Unreachable
from tailrace.streams.log.kafka.client_log import LibrdkafkaLog
from tailrace.streams.log.kafka.errors import ErrorKind, classify, topic_error
from tailrace.streams.log.kafka.options import BadOption

CONNECT_S = 10.0  # opening anything waits for a broker so long
DOWN_S = 30.0  # a running client gives up after so long without any broker
METADATA_LAG_S = 1.0  # a fresh topic may be unknown to some broker of the cluster for so long
_PROBE_S = 1.0
BATCH_BYTES = 262_144  # largest batch of records; topics that Tailrace creates take at least this
WRITER_ONLY = frozenset({"compression.type", "linger.ms", "batch.size"})  # librdkafka's consumers do not know these

log = structlog.get_logger("tailrace.kafka")


@dataclass
class Connection:
    """Address and options of a cluster, and the newest complaints of one client's background threads."""

    bootstrap: str
    options: Mapping[str, str]
    down_since: float | None = field(default=None, init=False)  # time.monotonic()
    complaint: str = field(default="", init=False)
    untrusted: bool = field(default=False, init=False)  # the complaint is about TLS or SASL

    def consumer(self, settings: Mapping[str, object]) -> Consumer:
        """Open a consumer; the connection's options win over `settings`. Raises BadOption."""
        chosen = {name: value for name, value in self.options.items() if name not in WRITER_ONLY}
        consumer: Consumer = self._open(Consumer, {**settings, **self._settings(), **chosen})
        return consumer

    def producer(self, settings: Mapping[str, object]) -> Producer:
        """Open a producer; the connection's options win over `settings`. Raises BadOption."""
        producer: Producer = self._open(Producer, {**settings, **self._settings(), **self.options})
        return producer

    def _open(self, kind: Any, settings: Mapping[str, object]) -> Any:
        try:
            return kind(dict(settings), logger=LibrdkafkaLog())
        except KafkaException as raised:
            raise BadOption(f"Kafka's options cannot be used: {raised.args[0].str()}") from None

    def _settings(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "error_cb": self._on_error,
            "reconnect.backoff.max.ms": 1_000,  # a broker that comes back is found within a second
            "socket.keepalive.enable": True,
            "topic.metadata.refresh.interval.ms": 30_000,
        }

    def _on_error(self, error: KafkaError) -> None:
        """Remember an error of the client, which goes on by itself. Called by librdkafka from within poll."""
        log.debug("client error", error=error.str())
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down_since = self.down_since or time.monotonic()
        elif classify(error) is ErrorKind.UNTRUSTED:
            self.complaint, self.untrusted = error.str(), True
        elif not self.untrusted:  # a cause must not be hidden by its effects
            self.complaint = error.str()

    def unreachable(self, seconds: float, cause: str = "") -> Unreachable:
        """Return the exception for a cluster that did not answer for so long; it names the newest complaint."""
        if self.untrusted:
            return Unreachable(
                f"Kafka at {self.bootstrap} does not accept the connection ({self.complaint}): "
                "check security.protocol and the options sasl.* and ssl.*. Check with: tailrace doctor"
            )
        cause = self.complaint or cause
        return Unreachable(
            f"No Kafka broker answers at {self.bootstrap} (tried {seconds:.0f} s){f' ({cause})' if cause else ''}: "
            "is it running, is the address right? Check with: tailrace doctor"
        )

    def check(self, client: Consumer | Producer) -> None:
        """Raise Unreachable if no broker has been connected for DOWN_S seconds and none answers now."""
        if self.down_since is None or time.monotonic() - self.down_since < DOWN_S:
            return
        try:
            client.list_topics(timeout=1)
        except KafkaException:
            raise self.unreachable(DOWN_S) from None
        self.down_since = None

    def await_cluster(self, client: Consumer | Producer) -> None:
        """Return when a broker answers. Raises Unreachable after CONNECT_S seconds, or when TLS or SASL fails."""
        deadline = time.monotonic() + CONNECT_S
        while True:
            try:
                client.list_topics(timeout=min(CONNECT_S, _PROBE_S))
            except KafkaException:
                client.poll(0)  # delivers the error events, which name the cause
                if self.untrusted or time.monotonic() > deadline:
                    raise self.unreachable(CONNECT_S) from None
            else:
                self.untrusted, self.complaint = False, ""
                return

    def await_topics(self, client: Consumer | Producer, topics: Iterable[str]) -> dict[str, int]:
        """Return the numbers of partitions of these topics. Raises TopicMissing, Unreachable."""
        self.await_cluster(client)
        deadline = time.monotonic() + METADATA_LAG_S
        return {topic: self._partitions(client, topic, deadline) for topic in topics}

    def _partitions(self, client: Consumer | Producer, topic: str, deadline: float) -> int:
        while True:
            try:
                described = client.list_topics(topic, timeout=CONNECT_S).topics[topic]
            except KafkaException:
                client.poll(0)
                raise self.unreachable(CONNECT_S) from None
            if described.error is None and described.partitions:
                return len(described.partitions)
            if time.monotonic() > deadline:
                raise topic_error(topic, described.error)
            time.sleep(0.05)
