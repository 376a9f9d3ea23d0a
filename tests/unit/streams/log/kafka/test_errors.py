"""The table from Kafka's error codes to outcomes, and the exceptions made of them."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from tailrace.streams.log.base import LogError, TooLarge, TopicMissing
from tailrace.streams.log.kafka.errors import ERROR_KINDS, ErrorKind, classify, topic_error, write_error


def test_every_code_of_librdkafka_has_an_outcome() -> None:
    """Each error code that confluent-kafka names is classified, by the table or by its flags."""
    codes = {value for name, value in vars(KafkaError).items() if name.isupper() and isinstance(value, int)}
    assert len(codes) > 100
    assert ERROR_KINDS.keys() <= codes
    assert all(isinstance(classify(KafkaError(code)), ErrorKind) for code in codes)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KafkaError(KafkaError.REQUEST_TIMED_OUT, "", False, True), ErrorKind.RETRIABLE),
        (KafkaError(KafkaError.REQUEST_TIMED_OUT, "", True), ErrorKind.FATAL),
        (KafkaError(KafkaError.PRODUCER_FENCED, "", True), ErrorKind.FENCED),
        (KafkaError(KafkaError.INVALID_TXN_STATE), ErrorKind.OTHER),
    ],
)
def test_the_table_wins_over_the_flags(error: KafkaError, kind: ErrorKind) -> None:
    """A code of the table keeps its kind; the flags decide for all others, the fatal one first."""
    assert kind is classify(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, TooLarge),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicMissing),
        (KafkaError.INVALID_TIMESTAMP, LogError),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, LogError),
        (KafkaError.INVALID_TXN_STATE, type(None)),
    ],
)
def test_writes_that_can_never_succeed_are_told_apart(code: int, kind: type[object]) -> None:
    """Only errors that trying again would repeat become an exception of their own."""
    error = KafkaError(code)
    assert type(write_error(classify(error), error, "w")) is kind


def test_a_topic_that_may_not_be_used_is_not_called_missing() -> None:
    """A missing permission is named; an absent topic, or one without a leader yet, is missing."""
    denied = topic_error("t", KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert type(denied) is LogError
    for error in (None, *map(KafkaError, (KafkaError._UNKNOWN_TOPIC, KafkaError.LEADER_NOT_AVAILABLE))):
        assert type(topic_error("t", error)) is TopicMissing
