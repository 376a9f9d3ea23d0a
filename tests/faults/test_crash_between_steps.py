"""A process killed between any two of the runner's numbered steps and restarted gives the output of an unbroken run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.crash_child import PLACES, POLICY, runner
from support.waiting import PATIENCE_S

from tailrace.streams.log.base import Committed, Topic, TopicPartition
from tailrace.streams.log.codec import encode
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.sqlite.log import SqliteLog

PARTITIONS = 2
EVENTS = 120
CHILD = Path(__file__).parents[1] / "support/crash_child.py"
Output = Counter[tuple[bytes | None, object]]  # (key, value) -> number of records


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """An embedded log with the topics of both kinds of runner, filled."""
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic(name, PARTITIONS) for name in ("source", "sink", "predictions", "labels", "examples")])
    writer = log.writer()
    writer.write([out for number in range(EVENTS) for out in event(number)])
    writer.commit()
    writer.close()
    yield log
    log.close()


def event(number: int) -> list[Out]:
    """Return a record to copy, a prediction and its labels: none for every third event, two for every fifth.

    Every seventh event has its labels before its prediction.
    """
    id, time, partition = f"e{number}", 10.0 * number, number % PARTITIONS
    labels = [] if number % 3 == 0 else [time + 5.0] if number % 5 else [time + 5.0, time + 20.0]
    prediction = {"id": id, "time": time, "release": 1, "scores": [0.5], "features": {"n": number}, "source": [0, 0]}
    outs = [Out("source", id.encode(), b"%d" % number, partition=partition)]
    outs += [Out("predictions", id.encode(), encode(prediction), partition=partition)]
    for known in labels:
        value = {"id": id, "label": known - time, "time": known}
        outs.append(Out("labels", id.encode(), encode(value), partition=partition))
    return outs[:1] + outs[1:][::-1] if number % 7 == 0 else outs


def records(log: SqliteLog, topic: str, below: dict[TopicPartition, Committed] | None = None) -> list[Record]:
    ends = log.end_positions(topic)
    if below is not None:
        ends = {at: below.get(at, Committed(0)).offset for at in ends}
    return [record for at, end in ends.items() for batch in log.scan(at, 0, end) for record in batch]


def copied(log: SqliteLog) -> Output:
    return Counter((record.key, record.value) for record in records(log, "sink"))


def to_copy(log: SqliteLog) -> Output:
    """Return the required content of `sink`: all records below the committed positions."""
    return Counter((r.key, r.value) for r in records(log, "source", log.committed("copy", ["source"])))


def joined(log: SqliteLog) -> Output:
    return Counter((record.key, json.loads(record.value or b"")["label"]) for record in records(log, "examples"))


def to_join(log: SqliteLog) -> Output:
    """Return the required content of `examples`: last labels of predictions whose window is closed at the commit."""
    committed = log.committed("join", ["predictions", "labels"])
    last = {r.key: json.loads(r.value or b"")["label"] for r in records(log, "labels", committed)}
    watermarks = {at.partition: _watermark(found) for at, found in committed.items() if at.topic == "predictions"}
    closed: Output = Counter()
    for record in records(log, "predictions", committed):
        step = POLICY.wait / 100
        deadline = ((json.loads(record.value or b"")["time"] + POLICY.wait) // step + 1) * step
        if record.key in last and deadline <= watermarks[record.partition]:
            closed[record.key, last[record.key]] += 1
    return closed


def _watermark(committed: Committed) -> float:
    found = json.loads(committed.metadata).get("watermark")
    return float("-inf") if found is None else float(found)


def lag(log: SqliteLog, group: str, topics: list[str]) -> int:
    committed = log.committed(group, topics)
    ends = {at: end for topic in topics for at, end in log.end_positions(topic).items()}
    return sum(end - committed.get(at, Committed(0)).offset for at, end in ends.items())


def run_until_killed(path: Path, kind: str, crash_at: str) -> None:
    """Run a child that must die at the given step."""
    environment = os.environ | {"CRASH_AT": crash_at, "PYTHONPATH": str(CHILD.parents[1])}
    child = subprocess.Popen([sys.executable, str(CHILD), str(path), kind], env=environment)
    try:
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def run_to_the_end(log: SqliteLog, kind: str, done: Callable[[], bool]) -> None:
    """Run the same runner in this process until the condition holds."""
    stop = threading.Event()
    thread = threading.Thread(target=runner(log, kind).run, args=(stop,))
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not done() and thread.is_alive():
            assert time.monotonic() < deadline, "it did not come to the end in time"
            time.sleep(0.002)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("place", PLACES)
def test_a_copy_is_exact_wherever_it_was_killed(log: SqliteLog, tmp_path: Path, place: str, times: int) -> None:
    """After a kill the output is the input below the committed positions; after a restart it is the whole input."""
    run_until_killed(tmp_path / "log.db", "copy", f"{place}:{times}")
    assert to_copy(log) == copied(log)
    assert lag(log, "copy", ["source"]) > 0
    run_to_the_end(log, "copy", lambda: lag(log, "copy", ["source"]) == 0)
    assert Counter({(f"e{n}".encode(), b"%d" % n): 1 for n in range(EVENTS)}) == copied(log)


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("place", PLACES)
def test_a_join_is_exact_wherever_it_was_killed(log: SqliteLog, tmp_path: Path, place: str, times: int) -> None:
    """After a kill the examples are those of the windows closed by the last commit; after a restart none is missing and
    none is there twice, although the state in memory is lost."""
    run_until_killed(tmp_path / "log.db", "join", f"{place}:{times}")
    assert to_join(log) == joined(log)
    topics = ["predictions", "labels"]
    assert lag(log, "join", topics) > 0
    run_to_the_end(log, "join", lambda: lag(log, "join", topics) == 0)
    assert to_join(log) == joined(log)
    assert len(joined(log)) > EVENTS / 2
