"""Classification of Kafka's errors (pure): a table from error code to kind. What follows is decided elsewhere.

librdkafka's own codes are negative and their names begin with an underscore; the others are the broker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from confluent_kafka import KafkaError, KafkaException

from tailrace.streams.log.base import LogError, TooLarge, TopicMissing


class ErrorKind(Enum):
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


ERROR_KINDS: Mapping[int, ErrorKind] = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: ErrorKind.TOPIC_MISSING,
    KafkaError._UNKNOWN_TOPIC: ErrorKind.TOPIC_MISSING,
    KafkaError._UNKNOWN_PARTITION: ErrorKind.TOPIC_MISSING,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: ErrorKind.DENIED,
    KafkaError.GROUP_AUTHORIZATION_FAILED: ErrorKind.DENIED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: ErrorKind.DENIED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: ErrorKind.DENIED,
    KafkaError._SSL: ErrorKind.UNTRUSTED,
    KafkaError._AUTHENTICATION: ErrorKind.UNTRUSTED,
    KafkaError.SASL_AUTHENTICATION_FAILED: ErrorKind.UNTRUSTED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: ErrorKind.UNTRUSTED,
    KafkaError._TRANSPORT: ErrorKind.NO_ANSWER,
    KafkaError._ALL_BROKERS_DOWN: ErrorKind.NO_ANSWER,
    KafkaError._TIMED_OUT: ErrorKind.NO_ANSWER,
    KafkaError._RESOLVE: ErrorKind.NO_ANSWER,
    KafkaError._FENCED: ErrorKind.FENCED,
    KafkaError.PRODUCER_FENCED: ErrorKind.FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH: ErrorKind.FENCED,
    KafkaError.MSG_SIZE_TOO_LARGE: ErrorKind.TOO_LARGE,
    KafkaError.INVALID_TIMESTAMP: ErrorKind.BAD_TIMESTAMP,
    KafkaError._PARTITION_EOF: ErrorKind.END,
    KafkaError._PURGE_QUEUE: ErrorKind.DROPPED,
    KafkaError._PURGE_INFLIGHT: ErrorKind.DROPPED,
    KafkaError._FATAL: ErrorKind.FATAL,
}
"""Codes with a meaning of their own; `classify` covers the others."""


def classify(error: KafkaError) -> ErrorKind:
    """Return the kind of an error: from the table, else from the flags that librdkafka sets on it."""
    kind = ERROR_KINDS.get(error.code())
    if kind is not None:
        return kind
    if error.fatal():
        return ErrorKind.FATAL
    return ErrorKind.RETRIABLE if error.retriable() else ErrorKind.OTHER


def error_of(raised: KafkaException) -> KafkaError:
    """Return the error inside of librdkafka's exception."""
    error: KafkaError = raised.args[0]
    return error


def topic_error(topic: str, error: KafkaError | None = None) -> LogError:
    """Return the exception for a topic that cannot be used: TopicMissing, or LogError for another cause."""
    passing = (KafkaError.LEADER_NOT_AVAILABLE,)  # of a topic that is being created
    if error is not None and classify(error) is not ErrorKind.TOPIC_MISSING and error.code() not in passing:
        return LogError(f"Topic {topic!r} cannot be used: {error.str()}")
    return TopicMissing(f"Topic {topic!r} does not exist. Create it, or check the name")


def write_error(kind: ErrorKind, error: KafkaError, writer: str) -> LogError | None:
    """Return the exception for a write that fails again with the same records: TooLarge, TopicMissing or LogError.

    None for every other kind, fenced and fatal errors included: the caller decides on those.
    """
    if kind is ErrorKind.TOO_LARGE:
        return TooLarge("A record is larger than its topic takes: raise its max.message.bytes, or send less")
    if kind is ErrorKind.TOPIC_MISSING:
        return topic_error("written to")
    if kind is ErrorKind.BAD_TIMESTAMP:
        return LogError(
            "A record's timestamp is further from the broker's clock than its topic takes: correct it, or raise "
            "the topic's message.timestamp.after.max.ms"
        )
    if kind is ErrorKind.DENIED:
        return LogError(f"Writer {writer!r} may not write: {error.str()}")
    return None
