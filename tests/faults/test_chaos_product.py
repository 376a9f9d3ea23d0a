"""Chaos on the whole product: worker, joiner and retrainer killed while events come in.

On Kafka brokers are killed too.
"""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.chaos import RATE, Chaos, Complete, Read, Sender, audit, records
from support.product import LABELS, MODELS, NAMES, WAIT, environment, gaps, manifests, releases_named, role, unlearned
from support.waiting import PATIENCE_S

from tailrace.app.supervisor import ROLES
from tailrace.streams.log.base import Log
from tailrace.streams.log.kafka.log import KafkaLog
from tailrace.streams.log.records import Record
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.testing.kafka import KafkaCluster

SEED = 20_240_502
KILLS = 3  # of each role; on Kafka, where brokers are killed too, KAFKA_KILLS
KAFKA_KILLS = 2
SECONDS = 20.0  # events flow at least this long
PATIENCE_MS = f"{PATIENCE_S * 1_000:.0f}"  # the sender outlasts a broker's outage
CATCH_UP_S = 420.0  # roles that died twice read one record at a time for a while, and events go on coming
LIMIT = 1_500.0  # seconds; each kill waits until the role killed before has started and made progress


@pytest.mark.long
@pytest.mark.timeout(LIMIT)
def test_kill_9_of_every_role_on_the_embedded_log(tmp_path: Path) -> None:
    """Each role is killed three times under load: each event has one prediction, each label one example; each release
    is published once, and each label learned once."""
    path = tmp_path / "log.db"
    log = SqliteLog(path)
    NAMES.create(log, partitions=4)
    rampage(log, f"sqlite:///{path}", tmp_path, partial(records, log), KILLS)
    log.close()


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(LIMIT)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # kafka-python drops refused connections so
def test_kill_9_of_every_role_and_of_brokers_on_kafka(
    tmp_path: Path, kafka_cluster_3: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Exactly once holds on three brokers, of which two are killed in turn, and each role twice."""
    caplog.set_level(logging.CRITICAL, "kafka")  # a log record would keep its traceback and so each of these sockets
    log = KafkaLog(kafka_cluster_3.bootstrap, {"message.timeout.ms": PATIENCE_MS})
    NAMES.create(log, partitions=4)
    first, second = random.Random(SEED).sample((1, 2, 3), 2)
    deeds = [
        partial(deed, node) for node in (first, second) for deed in (kafka_cluster_3.kill, kafka_cluster_3.restart)
    ]
    url, read = f"kafka://{kafka_cluster_3.bootstrap}", partial(independent, kafka_cluster_3.bootstrap)
    try:
        rampage(log, url, tmp_path, read, KAFKA_KILLS, deeds)
    finally:
        log.close()
        gc.collect()  # while its warnings are ignored


def rampage(
    log: Log, url: str, directory: Path, read: Read, kills: int, besides: list[partial[None]] | None = None
) -> None:
    """Run all roles, kill each `kills` times, let them finish; then audit the log."""
    sender = Sender(log, NAMES, SEED, wait=WAIT)
    roles = [role(log, name) for name in ROLES]
    with Chaos(roles, directory, environment(directory, url), check=sender.check) as chaos, sender:
        chaos.strike(kills, SEED, besides or [])
        sender.finish(SECONDS)
        chaos.await_(Complete(log, "chaos", sender.sent), CATCH_UP_S)
        chaos.await_(lambda: unlearned(log) < LABELS)
    audit(read, NAMES, sender.sent)
    served = releases_named(record.value or b"" for record in read(NAMES.predictions))
    published = manifests(read(MODELS))
    versions = Counter(made.version for made in published)
    assert set(versions.values()) == {1}, f"a version was published twice: {versions}"
    assert max(versions) >= kills
    assert any(made.updates for made in published)
    assert not gaps(published, read(NAMES.examples))
    assert len(served) >= kills, f"releases at work: {served}"
    assert len(sender.sent.events) >= RATE * SECONDS


def independent(bootstrap: str, topic: str) -> Iterator[Record]:
    """Read all committed records of a topic with a client that the product does not use for reading."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","), isolation_level="read_committed", auto_offset_reset="earliest"
    )
    try:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for found in consumer.poll(1_000, max_records=10_000).values():
                for m in found:
                    yield Record(m.topic, m.partition, m.offset, m.timestamp, m.key, m.value)
    finally:
        consumer.close()
