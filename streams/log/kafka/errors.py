"""Classification of Kafka's errors (pure): a table from error code to outcome. What follows is decided elsewhere.

librdkafka's own codes are negative and their names begin with an underscore; the others are the broker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from confluent_kafka import KafkaError, KafkaException

from tailrace.streams.log.base import LogError, TooLarge, TopicMissing


class Outcome(Enum):
    """Meaning of an error for the reader or writer that meets it."""

    TOPIC_MISSING = auto()  # the topic or partition does not exist
    DENIED = auto()  # the permission is missing
    UNTRUSTED = auto()  # TLS or SASL refused the connection
    NO_ANSWER = auto()  # no broker answers, or none did in time
    FENCED = auto()  # the producer's epoch is old: replaced, or its transaction timed out
    TOO_LARGE = auto()  # a record exceeds its topic's limit
    BAD_TIMESTAMP = auto()  # a record's timestamp is refused
    END = auto()  # no error: the end of a partition
    DROPPED = auto()  # no error: a record was dropped on request
    FATAL = auto()  # the client cannot go on
    RETRIABLE = auto()  # the same call may succeed later
    OTHER = auto()  # the operation failed, the client can go on


OUTCOMES: Mapping[int, Outcome] = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: Outcome.TOPIC_MISSING,
    KafkaError._UNKNOWN_TOPIC: Outcome.TOPIC_MISSING,
    KafkaError._UNKNOWN_PARTITION: Outcome.TOPIC_MISSING,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Outcome.DENIED,
    KafkaError.GROUP_AUTHORIZATION_FAILED: Outcome.DENIED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Outcome.DENIED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Outcome.DENIED,
    KafkaError._SSL: Outcome.UNTRUSTED,
    KafkaError._AUTHENTICATION: Outcome.UNTRUSTED,
    KafkaError.SASL_AUTHENTICATION_FAILED: Outcome.UNTRUSTED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: Outcome.UNTRUSTED,
    KafkaError._TRANSPORT: Outcome.NO_ANSWER,
    KafkaError._ALL_BROKERS_DOWN: Outcome.NO_ANSWER,
    KafkaError._TIMED_OUT: Outcome.NO_ANSWER,
    KafkaError._RESOLVE: Outcome.NO_ANSWER,
    KafkaError._FENCED: Outcome.FENCED,
    KafkaError.PRODUCER_FENCED: Outcome.FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH: Outcome.FENCED,
    KafkaError.MSG_SIZE_TOO_LARGE: Outcome.TOO_LARGE,
    KafkaError.INVALID_TIMESTAMP: Outcome.BAD_TIMESTAMP,
    KafkaError._PARTITION_EOF: Outcome.END,
    KafkaError._PURGE_QUEUE: Outcome.DROPPED,
    KafkaError._PURGE_INFLIGHT: Outcome.DROPPED,
    KafkaError._FATAL: Outcome.FATAL,
}
"""Codes with a meaning of their own; `classify` covers the others."""


def classify(error: KafkaError) -> Outcome:
    """Return the meaning of an error: from the table, else from the flags that librdkafka sets on it."""
    outcome = OUTCOMES.get(error.code())
    if outcome is not None:
        return outcome
    if error.fatal():
        return Outcome.FATAL
    return Outcome.RETRIABLE if error.retriable() else Outcome.OTHER


def error_of(raised: KafkaException) -> KafkaError:
    """Return the error inside of librdkafka's exception."""
    error: KafkaError = raised.args[0]
    return error


def topic_error(topic: str, error: KafkaError | None = None) -> LogError:
    """Return the exception for a topic that cannot be used: TopicMissing, or LogError for another cause."""
    passing = (KafkaError.LEADER_NOT_AVAILABLE,)  # of a topic that is being created
    if error is not None and classify(error) is not Outcome.TOPIC_MISSING and error.code() not in passing:
        return LogError(f"Topic {topic!r} cannot be used: {error.str()}")
    return TopicMissing(f"Topic {topic!r} does not exist. Create it, or check the name")


def write_error(outcome: Outcome, error: KafkaError, writer: str) -> LogError | None:
    """Return the exception for a write that can never succeed; None where the transaction may be tried again."""
    if outcome is Outcome.TOO_LARGE:
        return TooLarge("A record is larger than its topic takes: raise its max.message.bytes, or send less")
    if outcome is Outcome.TOPIC_MISSING:
        return topic_error("written to")
    if outcome is Outcome.BAD_TIMESTAMP:
        return LogError(
            "A record's timestamp is further from the broker's clock than its topic takes: correct it, or raise "
            "the topic's message.timestamp.after.max.ms"
        )
    if outcome is Outcome.DENIED:
        return LogError(f"Writer {writer!r} may not write: {error.str()}")
    return None
