"""The calls on librdkafka's producer that writers share: settings, one record, delivery of all records."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tailrace.streams.log.kafka.client import BATCH_BYTES
from tailrace.streams.log.records import Out

TRANSACTION_S = 15.0  # the broker aborts a silent writer's transaction after at least so long


def settings(
    name: str, transaction_timeout_ms: int, on_failure: Callable[[KafkaError, Message], None]
) -> dict[str, object]:
    """Settings of a producer, transactional with a time-out above 0. Without transactions `on_failure` is called for
    records not delivered."""
    transactional = transaction_timeout_ms > 0
    common: dict[str, object] = {
        "client.id": name or "tailrace",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",  # the Java clients' choice: equal keys meet (librdkafka's is CRC32)
        "linger.ms": 5 if transactional else 1,  # exactly once, a commit sends the records that wait
        # librdkafka doubles the pause with each try, up to a second: long beside a commit interval.
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 20,
        "batch.size": BATCH_BYTES,
        "message.max.bytes": 67_108_864,  # the topic decides, not the client
        "queue.buffering.max.messages": 1_000_000,
        "message.timeout.ms": transaction_timeout_ms or int(TRANSACTION_S * 1_000),
    }
    if transactional:  # a failed record fails its transaction
        return common | {"transactional.id": name, "transaction.timeout.ms": transaction_timeout_ms}
    return common | {"delivery.report.only.error": True, "on_delivery": on_failure}


def write_record(producer: Producer, record: Out) -> None:
    """Hand one record to librdkafka, in 0.7 us. Raises BufferError when its queue is full, KafkaException."""
    partition = -1 if record.partition is None else record.partition
    if record.headers:
        producer.produce(
            record.topic,
            record.value,
            record.key,
            partition,
            timestamp=record.timestamp or 0,
            headers=list(record.headers),
        )
    elif record.timestamp:
        producer.produce(record.topic, record.value, record.key, partition, timestamp=record.timestamp)
    else:
        producer.produce(record.topic, record.value, record.key, partition)


def deliver(producer: Producer, limit: float, failure: Callable[[], KafkaError | None]) -> None:
    """Wait up to `limit` seconds for the acknowledgement of every record. Raises KafkaException."""
    try:
        left = producer.flush(limit)
    except SystemError:  # confluent-kafka calls on_delivery with the exception of a fatal error already set
        raise KafkaException(KafkaError(KafkaError._FATAL)) from None
    failed = failure()
    if left or failed is not None:
        raise KafkaException(failed or KafkaError(KafkaError._MSG_TIMED_OUT))
