"""What readers, writers and administration of Kafka have in common: settings, reachability, errors in our own words."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from tailrace.streams.log.base import LogError, TopicMissing, Unreachable

PATIENCE = 10.0  # seconds that opening anything waits for a broker
DOWN_LIMIT = 30.0  # seconds without any broker after which a running client gives up
METADATA_LAG = 1.0  # seconds that a fresh topic may stay unknown to some broker of the cluster
log = logging.getLogger("tailrace.kafka")

WRITER_ONLY = frozenset(
    {"compression.type", "linger.ms", "batch.size"}
)  # options that librdkafka's consumers do not know
MISSING_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


class Chatter(logging.LoggerAdapter[logging.Logger]):
    """librdkafka's own lines, for debugging: whatever matters also comes as an error, and it repeats itself."""

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        super().log(logging.DEBUG, msg, *args, **kwargs)


CHATTER = Chatter(log.getChild("librdkafka"))


@dataclass
class Connection:
    """The address and options of a cluster, and what one client's background threads said about it lately."""

    bootstrap: str
    options: Mapping[str, str]
    down_since: float | None = field(default=None, init=False)
    complaint: str = field(default="", init=False)

    def settings(self, writer: bool = False) -> dict[str, Any]:
        """What every client is given; `options` win over it."""
        chosen = {name: value for name, value in self.options.items() if writer or name not in WRITER_ONLY}
        return {
            "bootstrap.servers": self.bootstrap,
            "error_cb": self._on_error,
            "reconnect.backoff.max.ms": 1_000,  # a broker that comes back is found within a second
            "socket.keepalive.enable": True,
            "topic.metadata.refresh.interval.ms": 30_000,
        } | chosen

    def _on_error(self, error: KafkaError) -> None:
        """Called from within poll. The client goes on by itself; only a long silence is for the caller to know."""
        log.debug("%s", error.str())
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down_since = self.down_since or time.monotonic()
        else:
            self.complaint = error.str()

    def unreachable(self, seconds: float) -> Unreachable:
        """The error that says so, with what librdkafka last complained about."""
        cause = f" ({self.complaint})" if self.complaint else ""
        return Unreachable(
            f"No Kafka broker answers at {self.bootstrap} (tried {seconds:.0f} s){cause}: "
            "is it running, is the address right? Check with: tailrace doctor"
        )

    def check(self, client: Consumer | Producer) -> None:
        """Raises Unreachable when no broker has been there for DOWN_LIMIT seconds. Cheap while all is well."""
        if self.down_since is None or time.monotonic() - self.down_since < DOWN_LIMIT:
            return
        try:
            client.list_topics(timeout=1)
        except KafkaException:
            raise self.unreachable(DOWN_LIMIT) from None
        self.down_since = None

    def await_cluster(self, client: Consumer | Producer) -> None:
        """Returns when a broker answers. Raises Unreachable after PATIENCE seconds."""
        try:
            client.list_topics(timeout=PATIENCE)
        except KafkaException:
            client.poll(0)  # serves the error callback: the complaint names the cause
            raise self.unreachable(PATIENCE) from None

    def await_topics(self, client: Consumer | Producer, topics: Iterable[str]) -> dict[str, int]:
        """The numbers of partitions of these topics. Raises TopicMissing, Unreachable."""
        deadline = time.monotonic() + METADATA_LAG
        return {topic: self._partitions(client, topic, deadline) for topic in topics}

    def _partitions(self, client: Consumer | Producer, topic: str, deadline: float) -> int:
        while True:
            try:
                found = client.list_topics(topic, timeout=PATIENCE).topics[topic]
            except KafkaException:
                client.poll(0)
                raise self.unreachable(PATIENCE) from None
            if found.error is None and found.partitions:
                return len(found.partitions)
            if time.monotonic() > deadline:
                raise topic_missing(topic, found.error)
            time.sleep(0.05)


def topic_missing(topic: str, error: KafkaError | None = None) -> LogError:
    """The error for a topic that cannot be used; other causes than its absence (no permission) are named."""
    if error is not None and error.code() not in MISSING_TOPIC | {KafkaError.LEADER_NOT_AVAILABLE}:
        return LogError(f"Topic {topic!r} cannot be used: {error.str()}")
    return TopicMissing(f"Topic {topic!r} does not exist. Create it, or check the name")


def error_of(raised: KafkaException) -> KafkaError:
    """The error inside of librdkafka's exception."""
    error: KafkaError = raised.args[0]
    return error
