"""Behaviour of the Kafka driver alone; the promises of both drivers are in tests/contracts."""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from uuid import uuid4

import pytest
import structlog
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource  # type: ignore[attr-defined]
from support.log_place import child, until
from support.waiting import PATIENCE_S

from tailrace.streams.log.base import (
    Aborted,
    Committed,
    Delivery,
    Fenced,
    TooLarge,
    Topic,
    TopicMissing,
    TopicPartition,
    Unreachable,
    Writer,
)
from tailrace.streams.log.kafka.client_log import LibrdkafkaLog
from tailrace.streams.log.kafka.log import KafkaLog
from tailrace.streams.log.kafka.options import admin_options
from tailrace.streams.log.kafka.producer import TRANSACTION_S
from tailrace.streams.log.kafka.writer import KafkaWriter
from tailrace.streams.log.records import Out


@pytest.fixture
def log(kafka_bootstrap: str) -> Iterator[KafkaLog]:
    """A log on a real Kafka."""
    log = KafkaLog(kafka_bootstrap)
    yield log
    log.close()


@pytest.fixture
def topic(log: KafkaLog) -> str:
    """A fresh topic of two partitions."""
    name = f"{uuid4().hex[:8]}.events"
    log.create([Topic(name, 2)])
    return name


def publish(writer: Writer, record: Out) -> None:
    """Write, commit, wait."""
    writer.write([record])
    writer.commit()
    writer.flush()


def test_options_are_translated_for_administration() -> None:
    """librdkafka's names for TLS and SASL become kafka-python's; options for reading and writing are left out."""
    options = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "word",
        "ssl.ca.location": "/ca.pem",
        "ssl.endpoint.identification.algorithm": "none",
        "compression.type": "zstd",
    }
    assert admin_options(options) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me",
        "sasl_plain_password": "word",
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize("opening", ["topics", "reader", "writer"])
def test_no_broker_is_said_in_time(opening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker every opening raises Unreachable, with the address and the fix."""
    monkeypatch.setattr("tailrace.streams.log.kafka.client.CONNECT_S", 1.0)
    monkeypatch.setattr("tailrace.streams.log.kafka.admin.CONNECT_S", 1.0)
    log = KafkaLog("127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 .*tailrace doctor"):
        log.reader(["events"]) if opening == "reader" else getattr(log, opening)()
    assert time.monotonic() - began < 10


@pytest.mark.kafka
@pytest.mark.parametrize("delivery", list(Delivery))
def test_too_large_a_record_leaves_the_writer_usable(log: KafkaLog, topic: str, delivery: Delivery) -> None:
    """A record beyond the broker's limit raises TooLarge at the commit's end; records written after it arrive."""
    writer = log.writer(f"{topic}-writer", delivery)
    with pytest.raises(TooLarge, match=r"max\.message\.bytes"):
        publish(writer, Out(topic, b"k", b"x" * 2_000_000))
    publish(writer, Out(topic, b"k", b"small", partition=0))
    writer.close()
    end = log.end_positions(topic)[TopicPartition(topic, 0)]
    assert [r.value for batch in log.scan(TopicPartition(topic, 0), 0, end) for r in batch] == [b"small"]


@pytest.mark.kafka
def test_what_is_superseded_in_a_compacted_topic_goes_soon(log: KafkaLog, kafka_bootstrap: str) -> None:
    """Compacted topics have small segments, because brokers clean closed ones only, and keep tombstones for an hour."""
    name = f"{uuid4().hex[:8]}.models"
    log.create([Topic(name, compacted=True)])
    client = AdminClient({"bootstrap.servers": kafka_bootstrap})
    (found,) = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]).values()
    configs = {key: entry.value for key, entry in found.result(10).items()}
    assert configs["cleanup.policy"] == "compact"
    assert (configs["segment.bytes"], configs["delete.retention.ms"]) == (str(64 << 20), "3600000")


def test_a_topic_that_is_missing_is_named_by_the_first_write(log: KafkaLog) -> None:
    """Writing to a topic that does not exist raises at once instead of waiting in a queue."""
    writer = log.writer()
    with pytest.raises(TopicMissing, match="nowhere"):
        writer.write([Out("nowhere", None, b"value")])
    writer.close()


@pytest.mark.kafka
def test_scan_ends_behind_aborted_transactions(log: KafkaLog, topic: str) -> None:
    """A scan of aborted records and control records yields nothing and ends."""
    writer, at = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE), TopicPartition(topic, 1)
    assert isinstance(writer, KafkaWriter)
    for value in (b"dropped", b"kept"):
        writer.write([Out(topic, None, value, partition=1)] * 10)
        writer._producer.flush()  # so that there is something to abort
        writer.abort() if value == b"dropped" else writer.commit()
    writer.flush()
    writer.close()
    end = log.end_positions(topic)[at]
    assert [r.value for batch in log.scan(at, 0, end) for r in batch] == [b"kept"] * 10
    assert list(log.scan(at, end - 1, end)) == []


@pytest.mark.kafka
def test_keys_go_where_the_java_clients_put_them(log: KafkaLog) -> None:
    """Equal keys meet in one partition with other producers' records: the partitioner is murmur2."""
    from kafka.partitioner import murmur2

    topic, keys = f"{uuid4().hex[:8]}.keys", [hashlib.sha256(b"%d" % n).digest()[: n % 9 + 1] for n in range(100)]
    log.create([Topic(topic, 7)])
    writer = log.writer()
    writer.write([Out(topic, key, key) for key in keys])
    writer.flush()
    writer.close()
    found = {r.key: r.partition for at in log.end_positions(topic) for b in log.scan(at, 0, 100) for r in b}
    assert {key: (murmur2(key) & 0x7FFFFFFF) % 7 for key in keys} == found


@pytest.mark.kafka
def test_a_zombie_stays_fenced(log: KafkaLog, topic: str) -> None:
    """A replaced writer raises Fenced each time; its abort and close do not disturb the new one."""
    old = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE)
    old.write([Out(topic, None, b"old")])
    new = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE)
    for _ in range(2):
        with pytest.raises(Fenced, match="must end"):
            publish(old, Out(topic, None, b"old"))
    old.abort()
    old.close()
    publish(new, Out(topic, None, b"new"))
    new.close()


@pytest.mark.kafka
def test_positions_of_partitions_not_held_are_refused(log: KafkaLog, topic: str) -> None:
    """Committing for a partition that the reader does not hold raises Aborted and drops the transaction."""
    reader = log.reader([topic], group=f"{topic}-group", alone=True)
    writer = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE)
    writer.write([Out(topic, None, b"value", partition=0)])
    with pytest.raises(Aborted, match="moved"):
        writer.commit({TopicPartition(topic, 2): Committed(1)}, reader)
    writer.commit()
    writer.flush()
    writer.close()
    reader.close()
    assert log.committed(f"{topic}-group", [topic]) == {}
    assert list(log.scan(TopicPartition(topic, 0), 0, 1)) == []


@pytest.mark.kafka
def test_a_reader_waits_for_another_members_open_transaction(log: KafkaLog, kafka_bootstrap: str, topic: str) -> None:
    """A new reader waits for the transaction that is open on its partitions, and starts at what it commits."""
    group, at = f"{topic}-group", TopicPartition(topic, 0)
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": f"{topic}-slow"})
    member = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": group})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"value", partition=0)
    producer.send_offsets_to_transaction([Place(topic, 0, 7, "seven")], member.consumer_group_metadata())
    with ThreadPoolExecutor(1) as executor:
        opening = executor.submit(log.reader, [topic], group=group, alone=True)
        assert not wait([opening], timeout=0.3).done
        producer.commit_transaction()
        reader = opening.result()
    assert Committed(7, "seven") == reader.rewind()[at]
    reader.close()
    member.close()


@pytest.mark.kafka
def test_a_transaction_that_took_too_long_is_only_aborted(
    log: KafkaLog, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer whose transaction timed out, but which was not replaced, is Aborted and stays usable."""
    monkeypatch.setattr("tailrace.streams.log.kafka.writer.TRANSACTION_S", 1.0)
    writer, at = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE), TopicPartition(topic, 0)
    assert isinstance(writer, KafkaWriter)
    writer.write([Out(topic, None, b"slow", partition=0)])
    writer._producer.flush()
    deadline = time.monotonic() + PATIENCE_S
    while log.end_positions(topic)[at] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    writer.commit()
    with pytest.raises(Aborted):
        writer.flush()
    publish(writer, Out(topic, None, b"again", partition=0))
    writer.close()
    assert [r.value for batch in log.scan(at, 0, 10) for r in batch] == [b"again"]


@pytest.mark.kafka
def test_a_writer_that_was_replaced_while_its_transaction_timed_out_ends(
    log: KafkaLog, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that was silent until the broker ended its transaction, and was replaced, does not fence the new one."""
    monkeypatch.setattr("tailrace.streams.log.kafka.writer.TRANSACTION_S", 1.0)
    old, at = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE), TopicPartition(topic, 0)
    assert isinstance(old, KafkaWriter)
    old.write([Out(topic, None, b"old", partition=0)])
    old._producer.flush()
    until(lambda: log.end_positions(topic)[at] > 0)
    new = log.writer(f"{topic}-writer", Delivery.EXACTLY_ONCE)
    publish(new, Out(topic, None, b"new", partition=0))
    for _ in range(2):
        with pytest.raises(Fenced, match="must end"):
            publish(old, Out(topic, None, b"older", partition=0))
    old.abort()
    old.close()
    publish(new, Out(topic, None, b"newer", partition=0))
    new.close()
    values = [r.value for batch in log.scan(at, 0, log.end_positions(topic)[at]) for r in batch]
    assert values == [b"new", b"newer"]


@pytest.mark.kafka
@pytest.mark.long
def test_a_frozen_process_that_was_replaced_is_fenced(log: KafkaLog, kafka_bootstrap: str, topic: str) -> None:
    """A process frozen in a transaction beyond its time-out, and replaced, gets Fenced; the new one continues."""
    at, name = TopicPartition(topic, 0), f"{topic}-writer"
    with child("freeze_child.py", kafka_bootstrap, topic, name) as frozen:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == "open\n"
        new = log.writer(name, Delivery.EXACTLY_ONCE)
        publish(new, Out(topic, None, b"new", partition=0))
        time.sleep(TRANSACTION_S + 2)  # the transaction must be older than its time-out
        frozen.send_signal(signal.SIGCONT)
        assert frozen.stdout.readline() == "Fenced\n"
        assert frozen.wait(PATIENCE_S) == 0
    publish(new, Out(topic, None, b"newer", partition=0))
    new.close()
    values = [r.value for batch in log.scan(at, 0, log.end_positions(topic)[at]) for r in batch]
    assert values == [b"new", b"newer"]


@pytest.mark.kafka
def test_retention_is_the_clusters_unless_configured(log: KafkaLog, kafka_bootstrap: str) -> None:
    """A topic created without a retention has no setting of its own; with one it has exactly that."""
    plain, short = f"{uuid4().hex[:8]}.plain", f"{uuid4().hex[:8]}.short"
    log.create([Topic(plain), Topic(short, retention_s=90)])
    client = AdminClient({"bootstrap.servers": kafka_bootstrap})

    def retention(topic: str) -> tuple[str, str]:
        (described,) = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
        entry = described.result(10)["retention.ms"]
        return entry.value, ConfigSource(entry.source).name

    assert retention(short) == ("90000", "DYNAMIC_TOPIC_CONFIG")
    assert retention(plain) == ("604800000", "DEFAULT_CONFIG")


def test_client_lines_are_structured(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings of kafka-python and lines of librdkafka go through the structured logger, at their level or at debug."""
    structlog.reset_defaults()  # a command that ran in this process may have left its own level
    with structlog.testing.capture_logs() as lines:
        KafkaLog("127.0.0.1:1").close()
        logging.getLogger("kafka.net.manager").warning("bootstrap %s failed", "b0")
        logging.getLogger("kafka.net.manager").info("not shown")
        LibrdkafkaLog().log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#1", "refused")
    assert lines == [
        {
            "event": "kafka-python",
            "log_level": "warning",
            "logger": "kafka.net.manager",
            "message": "bootstrap b0 failed",
        },
        {"event": "librdkafka", "log_level": "debug", "level_name": "ERROR", "message": "FAIL [rdkafka#1] refused"},
    ]
    assert capsys.readouterr().err == ""
