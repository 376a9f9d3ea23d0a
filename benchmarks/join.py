"""Throughput of the label join: predictions and labels read per second from topics filled beforehand.

    python -m benchmarks.join [N] [--profile]        prints one JSON object

Measures a joiner without its process: the real JoinStep in the real Runner on the embedded log, exactly once.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tailrace.declaration.label import JoinPolicy
from tailrace.streams.join.step import JoinStep
from tailrace.streams.log.base import Log, Sharing, Topic
from tailrace.streams.log.records import Out, Prediction, Source
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.runtime.observer import Observer
from tailrace.streams.runtime.runner import Runner, RunnerConfig

BAR = 100_000  # records a second
PARTITIONS = 4
WAIT = 3_600.0
PER_SECOND = 50.0  # events a second of event time: 180,000 windows are open at any time
DELAY = 600.0  # seconds of event time between an event and its label
FEATURES = {"carrier": "UA", "origin": "EWR", "text": "x" * 120} | {f"number_{n}": n / 7 for n in range(6)}


class Result(msgspec.Struct, frozen=True):
    """Printed result.

    `cpu_s` far below `seconds` shows that the machine was busy with other work. `restore_s`: seconds in which a second
    joiner rebuilt the state of the first, `held` predictions and early labels.
    """

    records: int
    seconds: float
    cpu_s: float
    records_per_s: int
    examples: int
    held: int
    restore_s: float
    bar: int = BAR


def fill(log: Log, count: int) -> None:
    """Write `count` predictions with 300 bytes of features, and their labels."""
    log.create([Topic(name, PARTITIONS) for name in ("predictions", "labels", "examples")])
    writer, start = log.writer(), 1.7e9
    features = msgspec.Raw(msgspec.json.encode(FEATURES))
    for first in range(0, count, 5_000):
        writer.write([out for n in range(first, min(first + 5_000, count)) for out in _pair(n, start, features)])
        writer.commit()
    writer.close()


def _pair(number: int, start: float, features: msgspec.Raw) -> Iterator[Out]:
    id, time = f"event-{number:09d}", start + number / PER_SECOND
    prediction = Prediction(id, time, 3, [0.123456], features, Source(0, number))
    label = {"id": id, "label": number % 5 == 0, "time": time + DELAY}
    yield Out("predictions", id.encode(), msgspec.json.encode(prediction))
    yield Out("labels", id.encode(), msgspec.json.encode(label))


class Until(Observer):
    """Observer that stops the runner after `records` records."""

    def __init__(self, records: int) -> None:
        self.stop = threading.Event()
        self._left = records

    def batch(self, read: int, written: int, seconds: float) -> None:
        """See `Observer`."""
        self._left -= read
        if self._left <= 0:
            self.stop.set()


def join(log: Log, records: int) -> tuple[JoinStep, float]:
    """Join until `records` records have been read; return the step and the seconds."""
    step = JoinStep(log, JoinPolicy(WAIT), predictions="predictions", labels="labels", examples="examples")
    config = RunnerConfig(("predictions", "labels"), "joiner", "joiner", "a", Sharing.TOGETHER)
    until = Until(records)
    started = time.perf_counter()
    Runner(log, step, config, observer=until).run(until.stop)
    return step, time.perf_counter() - started


def measure(count: int, directory: Path) -> Result:
    """Fill the topics, join, and rebuild the state in a second joiner."""
    log = SqliteLog(directory / "join.db")
    fill(log, count)
    cpu = time.process_time()
    step, seconds = join(log, 2 * count)
    cpu = time.process_time() - cpu
    examples = sum(log.end_positions("examples").values())
    _, restored = join(log, 0)
    log.close()
    rate = round(2 * count / seconds)
    return Result(2 * count, round(seconds, 3), round(cpu, 3), rate, examples, step.held(), round(restored, 3))


def main() -> int:
    """Run this benchmark and return the exit status: 1 if the rate is below the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.join", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=200_000, help="number of predictions, and of labels")
    parser.add_argument("--profile", action="store_true", help="print a profile to standard error")
    options = parser.parse_args()
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory(prefix="tailrace-join-") as directory:
        if options.profile:
            profile.enable()
        result = measure(options.count, Path(directory))
        profile.disable()
    if options.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    print(msgspec.json.encode(result).decode())
    return 0 if result.records_per_s >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
