"""Shared parts of benchmarks: logs to measure on, child processes, rows of the result table."""

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

from tailrace.app.runners import COMMIT_AT_LEAST_ONCE_S, COMMIT_EMBEDDED_S, COMMIT_KAFKA_S
from tailrace.testing.kafka import KafkaCluster

ROOT = Path(__file__).resolve().parent.parent
NO_KAFKA = "no Kafka: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17), or KAFKA_BOOTSTRAP_SERVERS"
T = TypeVar("T")


class Place(msgspec.Struct, frozen=True):
    """A log to measure on, and its commit intervals in seconds."""

    name: str
    url: str
    commit_exactly_once: float
    commit_at_least_once: float = COMMIT_AT_LEAST_ONCE_S


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One figure of the result. `bar`: the required value as text; `met`: True if it is reached, None without a bar."""

    group: str
    what: str
    value: float | None
    unit: str = ""
    bar: str = ""
    met: bool | None = None
    note: str = ""


def at_most(group: str, what: str, value: float, bar: float, unit: str = "ms") -> Row:
    """Make a row whose value must not exceed `bar`."""
    return Row(group, what, value, unit, f"<= {bar:g}", value <= bar)


def at_least(group: str, what: str, value: float, bar: float, unit: str = "") -> Row:
    """Make a row whose value must reach `bar`."""
    return Row(group, what, value, unit, f">= {bar:g}", value >= bar)


def percentiles(values: Sequence[float], *wanted: float) -> list[float]:
    """Compute percentiles (0 to 100) of at least one value."""
    return [float(value) for value in np.percentile(np.asarray(values), wanted)]


@contextmanager
def kafka(directory: Path) -> Iterator[Place | None]:
    """Provide a Kafka: that of KAFKA_BOOTSTRAP_SERVERS, else a broker started from KAFKA_HOME, else None."""
    given, home = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KAFKA_HOME")
    if given:
        yield Place("Kafka", f"kafka://{given}", COMMIT_KAFKA_S)
    elif home and shutil.which("java"):
        with KafkaCluster(Path(home), directory, brokers=1, bench=True) as cluster:
            yield Place("Kafka", f"kafka://{cluster.bootstrap}", COMMIT_KAFKA_S)
    else:
        yield None


def embedded(directory: Path, name: str) -> Place:
    """Name a new embedded log."""
    return Place("embedded", f"sqlite:///{directory / name}.db", COMMIT_EMBEDDED_S)


class Child:
    """Child process `python -m benchmarks.<module> <job as JSON>` that sends lines of JSON on its standard output."""

    def __init__(self, module: str, job: msgspec.Struct) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", msgspec.json.encode(job).decode()]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # has no effect on a process that has ended
        with self._process:  # closes its pipes and waits
            pass

    @property
    def speaks(self) -> bool:
        """True if a line can be read or the process has ended: `hear` then returns at once."""
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def hear(self, kind: type[T]) -> T:
        """Wait for the next line of this type and return it. Raise RuntimeError if the process ends first."""
        assert self._process.stdout
        for line in self._process.stdout:
            with suppress(msgspec.ValidationError):
                return msgspec.json.decode(line, type=kind)
        raise RuntimeError(f"{self._process.args!r} ended with exit code {self._process.wait()}")

    def stop(self) -> None:
        """Close the standard input of the process, which ends it (see `when_stopped`)."""
        assert self._process.stdin
        self._process.stdin.close()


def job(kind: type[T]) -> T:
    """Read the job of this child process from its command line."""
    return msgspec.json.decode(sys.argv[1], type=kind)


def say(message: Any) -> None:
    """Send a message from a child process to its parent."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def when_stopped() -> threading.Event:
    """Make, in a child process, an event that is set when the parent closes the pipe or dies."""
    stopped = threading.Event()

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: the interpreter would end while its lock is held
        stopped.set()

    threading.Thread(target=wait, daemon=True).start()
    return stopped
