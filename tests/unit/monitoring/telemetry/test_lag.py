"""Consumer lag as workers export it, on both logs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from support.log_place import until

from tailrace.monitoring.telemetry.lag import LagCollector
from tailrace.streams.log.base import Batch, Delivery, Log, Topic, TopicPartition
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """An embedded log, and a real Kafka."""
    log: Log
    if request.param == "sqlite":
        log = SqliteLog(tmp_path / "log.db")
    else:
        from tailrace.streams.log.kafka.log import KafkaLog

        log = KafkaLog(request.getfixturevalue("kafka_bootstrap"))
    yield log
    log.close()


class Worker:
    """A worker that copies a topic, and the lag that it exports."""

    def __init__(self, log: Log, topic: str, instance: str) -> None:
        def copied(batch: Batch) -> list[Out]:
            return [Out(f"{topic}.copy", record.key, record.value) for record in batch.records]

        group = f"{topic}.worker"
        config = RunnerConfig((topic,), group, f"{group}-{instance}", instance, commit_interval=0.01)
        self.runner = Runner(log, Stateless(copied), config)
        self._collector = LagCollector(log, group, [topic], held=lambda: self.runner.assignment)

    def lags(self) -> dict[int, float]:
        """Exported records of lag by partition."""
        families = list(self._collector.collect())
        assert families
        return {int(s.labels["partition"]): s.value for s in families[0].samples}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run in a thread."""
        stop = threading.Event()
        thread = threading.Thread(target=self.runner.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def topic(log: Log) -> str:
    """A topic with two partitions, and the topic of its copies."""
    name = f"{uuid4().hex[:8]}.events"
    log.create([Topic(name, 2), Topic(f"{name}.copy", 2)])
    return name


def test_a_quiet_transactional_topic_has_no_lag(log: Log, topic: str) -> None:
    """After all records have been taken the lag is 0, although commit and abort markers follow the last record."""
    writer = log.writer(f"{topic}-source", Delivery.EXACTLY_ONCE)
    for number in range(20):
        writer.write([Out(topic, b"%d" % n, b"%d" % number, partition=n % 2) for n in range(4)])
        writer.commit()
    writer.flush()
    worker = Worker(log, topic, "a")
    with worker.running():
        until(lambda: worker.lags() == {0: 0, 1: 0})
        copies = f"{topic}.copy"
        ends = log.end_positions(copies)
        writer.write([Out(topic, None, b"aborted", partition=0)] * 3)
        if hasattr(writer, "_producer"):
            writer._producer.flush()  # on Kafka, so that there is something to abort
        writer.abort()
        writer.write([Out(topic, None, b"last", partition=1)])
        writer.commit()
        writer.flush()
        until(lambda: sum(log.end_positions(copies).values()) > sum(ends.values()))
        until(lambda: worker.lags() == {0: 0, 1: 0})
    writer.close()


def test_a_standby_exports_no_lag(log: Log) -> None:
    """A worker without partitions exports no lag, while its peer exports that of every partition."""
    topic = f"{uuid4().hex[:8]}.events"
    log.create([Topic(topic, 1), Topic(f"{topic}.copy", 1)])
    peer, standby = Worker(log, topic, "a"), Worker(log, topic, "b")
    with peer.running():
        until(lambda: peer.runner.assignment == {TopicPartition(topic, 0)})
        with standby.running():
            until(lambda: standby.runner.idle)
            assert standby.lags() == {}
            assert peer.lags().keys() == {0}
        assert standby.lags() == {}
