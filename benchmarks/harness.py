"""What measurements share: places (logs) to measure on, child processes, rows of the table."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from tailrace.app.factory import COMMIT_AT_LEAST_ONCE_S, COMMIT_EMBEDDED_S, COMMIT_KAFKA_S
from tailrace.testing.kafka import KafkaCluster

ROOT = Path(__file__).resolve().parent.parent
NO_KAFKA = "no Kafka: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17), or KAFKA_BOOTSTRAP_SERVERS"
T = TypeVar("T")


class Place(msgspec.Struct, frozen=True):
    """A log to measure on, and how often one commits to it (seconds)."""

    name: str
    url: str
    commit_exactly_once: float
    commit_at_least_once: float = COMMIT_AT_LEAST_ONCE_S


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One figure. `bar`: what it must reach, as text; `met`: whether it does."""

    group: str
    what: str
    value: float | None
    unit: str = ""
    bar: str = ""
    met: bool | None = None
    note: str = ""


def at_most(group: str, what: str, value: float, bar: float, unit: str = "ms") -> Row:
    """A figure that must not exceed its bar."""
    return Row(group, what, value, unit, f"<= {bar:g}", value <= bar)


def at_least(group: str, what: str, value: float, bar: float, unit: str = "") -> Row:
    """A figure that must reach its bar."""
    return Row(group, what, value, unit, f">= {bar:g}", value >= bar)


def percentiles(values: Sequence[float], *wanted: float) -> list[float]:
    """Of at least one value."""
    return [float(found) for found in np.percentile(np.asarray(values), wanted)]


@contextmanager
def kafka(directory: Path) -> Iterator[Place | None]:
    """A Kafka to measure on: the one that is given, else one broker of our own, else None."""
    given, home = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KAFKA_HOME")
    if given:
        yield Place("Kafka", f"kafka://{given}", COMMIT_KAFKA_S)
    elif home and shutil.which("java"):
        with KafkaCluster(Path(home), directory, brokers=1, bench=True) as cluster:
            yield Place("Kafka", f"kafka://{cluster.bootstrap}", COMMIT_KAFKA_S)
    else:
        yield None


def embedded(directory: Path, name: str) -> Place:
    """A fresh embedded log."""
    return Place("embedded", f"sqlite:///{directory / name}.db", COMMIT_EMBEDDED_S)


class Child:
    """A process `python -m benchmarks.<module> <job as JSON>` that says things in lines of JSON on standard output."""

    def __init__(self, module: str, job: msgspec.Struct) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", msgspec.json.encode(job).decode()]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # no news to one that has ended
        with self._process:  # closes its pipes and waits
            pass

    @property
    def speaks(self) -> bool:
        """It is saying something, or has ended: `hear` will not wait."""
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def hear(self, kind: type[T]) -> T:
        """The next thing of this kind that it says. Raises RuntimeError when it has ended instead."""
        assert self._process.stdout
        for line in self._process.stdout:
            with suppress(msgspec.ValidationError):
                return msgspec.json.decode(line, type=kind)
        raise RuntimeError(f"{self._process.args!r} ended with exit code {self._process.wait()}")

    def stop(self) -> None:
        """Close its standard input, which ends it (see `when_stopped`)."""
        assert self._process.stdin
        self._process.stdin.close()


def job(kind: type[T]) -> T:
    """In a child: what to do."""
    return msgspec.json.decode(sys.argv[1], type=kind)


def say(what: Any) -> None:
    """In a child: tell the parent."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def when_stopped() -> threading.Event:
    """In a child: an event that is set when the parent says stop, or has died."""
    stopped = threading.Event()

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
        stopped.set()

    threading.Thread(target=wait, daemon=True).start()
    return stopped
