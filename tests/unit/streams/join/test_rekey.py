"""Re-keyed labels on the real embedded log: a join during the copy loses no label."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.waiting import PATIENCE_S

from tailrace.declaration.label import JoinPolicy
from tailrace.streams.join.label_codec import label_codec
from tailrace.streams.join.rekey import Rekey, drained
from tailrace.streams.join.step import JoinStep
from tailrace.streams.log.base import Committed, Log, Sharing, Topic, TopicPartition
from tailrace.streams.log.codec import encode
from tailrace.streams.log.records import LabelMessage, Out, Prediction, Source
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless

COUNT = 3_000
TOPICS = ("predictions", "labels", "labels-by-id", "examples")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """An embedded log with the topics of a join with re-keyed labels."""
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic(name, 1) for name in (*TOPICS, "labels.dlq")])
    yield log
    log.close()


def put(log: Log, *records: Out) -> None:
    writer = log.writer()
    writer.write(records)
    writer.close()


def test_a_joiner_that_is_faster_than_the_copy_waits_for_it(log: SqliteLog) -> None:
    """After a pause longer than the wait, every label in time gives an example."""
    times = [10.0 * number for number in range(COUNT)]
    raw = msgspec.Raw(b"{}")
    predictions = (Prediction(f"e{n}", at, 1, [0.5], raw, Source(0, n)) for n, at in enumerate(times))
    put(log, *(Out("predictions", None, encode(prediction)) for prediction in predictions))
    put(log, *(Out("labels", None, encode(LabelMessage(f"e{n}", 1, at + 60.0))) for n, at in enumerate(times)))
    join = JoinStep(
        log, JoinPolicy(600.0), predictions="predictions", labels="labels-by-id", examples="examples",
        upstream=drained(log, "copy", "labels"),
    )  # fmt: skip
    joiner = RunnerConfig(("predictions", "labels-by-id"), "join", "join", sharing=Sharing.TOGETHER)
    copier = RunnerConfig(("labels",), "copy", "copy")
    runners = Runner(log, join, joiner), Runner(log, Stateless(Rekey(label_codec({}), "labels-by-id")), copier)
    stop = threading.Event()
    threads = [threading.Thread(target=runner.run, args=(stop,)) for runner in runners]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while join.counts.matched < COUNT and not join.counts.unmatched and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert (join.counts.matched, join.counts.unmatched) == (COUNT, 0)
    assert sum(log.end_positions("examples").values()) == COUNT


def test_drained_means_nothing_is_left(log: SqliteLog) -> None:
    """A check tells if the group has committed all records; within a second of the last one it returns False."""
    now = [0.0]
    look = drained(log, "copy", "labels", clock=lambda: now[0])
    assert look()
    assert not look()
    put(log, Out("labels", b"k", b"v"))
    now[0] = 2.0
    assert not look()
    reader = log.reader(["labels"], group="copy", alone=True)
    writer = log.writer()
    writer.commit({TopicPartition("labels", 0): Committed(1)}, reader)
    writer.close()
    reader.close()
    now[0] = 4.0
    assert look()
