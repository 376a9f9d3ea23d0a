"""Workers that start and drain during a rolling deployment."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.chaos import PYTHONPATH, Sender, outcome, records
from support.product import NAMES, WAIT, environment, role
from support.waiting import PATIENCE_S, until

from tailrace.streams.log.base import TopicPartition
from tailrace.streams.log.sqlite.log import SqliteLog

SEED = 20_240_503


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """An embedded log with the topics of the pipeline."""
    log = SqliteLog(tmp_path / "log.db")
    NAMES.create(log, partitions=4)
    yield log
    log.close()


@contextmanager
def worker(log: SqliteLog, directory: Path, instance: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker of that name; kill it at the end of the block if it still runs."""
    settings = os.environ | {"PYTHONPATH": PYTHONPATH} | environment(directory, f"sqlite:///{directory / 'log.db'}")
    process = subprocess.Popen(role(log, "worker", instance).command, env=settings, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def done(log: SqliteLog) -> dict[TopicPartition, int]:
    return {at: found.offset for at, found in log.committed("chaos.worker", [NAMES.events]).items()}


def drained(process: subprocess.Popen[bytes]) -> bool:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_S) == 0


def leases(directory: Path) -> Counter[str]:
    """Return the number of partitions that each instance of the worker holds."""
    query = "SELECT instance FROM lease JOIN member ON member = member.id WHERE lease.consumers = 'chaos.worker'"
    with closing(sqlite3.connect(directory / "log.db")) as db:
        return Counter(instance for (instance,) in db.execute(query))


def test_two_workers_share_the_events_and_one_drains_under_load(log: SqliteLog, tmp_path: Path) -> None:
    """Two instances hold two partitions each and score all four. After SIGTERM one ends with exit code 0 and the other
    takes over its partitions: no event is lost, none is scored twice."""
    with (
        Sender(log, NAMES, SEED, wait=WAIT) as sender,
        worker(log, tmp_path, "a") as first,
        worker(log, tmp_path, "b") as second,
    ):
        until(lambda: leases(tmp_path) == {"a": 2, "b": 2})
        shared = done(log)
        until(lambda: all(now > shared.get(at, 0) for at, now in done(log).items()) and len(done(log)) == 4)
        assert drained(first)
        assert leases(tmp_path)["a"] == 0
        until(lambda: leases(tmp_path) == {"b": 4})
        sender.finish(0)
        until(lambda: sum(done(log).values()) == len(sender.sent.events))
        assert drained(second)
    found = outcome(partial(records, log), NAMES)
    assert Counter(sender.sent.events) == found.predictions
    assert found.dead == 0
