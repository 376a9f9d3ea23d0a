"""Runner that kills itself at a chosen place: python crash_child.py PATH copy|join, with CRASH_AT=<place>:<n>.

It sends itself SIGKILL when it reaches that place for the n-th time. The places lie between the numbered steps of
`runtime.runner`. Wrappers of the step and the writer find them, so the product holds no code for this.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tailrace.declaration.label import JoinPolicy, Winner
from tailrace.streams.join.step import JoinStep
from tailrace.streams.log.base import (
    Batch,
    Committed,
    Delivery,
    Log,
    Positions,
    Reader,
    Sharing,
    TopicPartition,
    Writer,
)
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.runtime.batch_size import BatchSize
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless, Step

PLACES = (
    "read, not stepped",
    "stepped, not written",
    "written, not closed",
    "closed, not written",
    "all written, not committed",
    "committed, not read on",
)
POLICY = JoinPolicy(wait=50.0, wins=Winner.LAST)


class Fate:
    """Place and time of the crash."""

    def __init__(self, crash_at: str) -> None:
        self._place, _, times = crash_at.partition(":")
        self._times = int(times or 0)
        self._met: Counter[str] = Counter()

    def meet(self, place: str) -> None:
        self._met[place] += 1
        if place == self._place and self._met[place] == self._times:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalStep:
    """A step that may crash before and after each method."""

    def __init__(self, step: Step, fate: Fate) -> None:
        self._step, self._fate = step, fate

    def __call__(self, batch: Batch) -> Sequence[Out]:
        if batch.records:
            self._fate.meet("read, not stepped")
        out = self._step(batch)
        if batch.records:
            self._fate.meet("stepped, not written")
        return out

    def skip(self, record: Record) -> None:
        self._step.skip(record)

    def before_commit(self) -> tuple[Sequence[Out], Positions]:
        self._fate.meet("written, not closed")
        result = self._step.before_commit()
        self._fate.meet("closed, not written")
        return result

    def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self._step.restore(committed)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        self._step.forget(partitions)


class MortalWriter:
    """A writer that may crash before and after a commit, which may then be incomplete."""

    committing = False  # the loop never postpones a commit, so each batch has its own

    def __init__(self, writer: Writer, fate: Fate) -> None:
        self._writer, self._fate = writer, fate

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        self._fate.meet("all written, not committed")
        self._writer.commit(positions, reader)
        self._fate.meet("committed, not read on")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class MortalLog:
    """A log with writers that may crash."""

    def __init__(self, log: Log, fate: Fate) -> None:
        self._log, self._fate = log, fate

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> MortalWriter:
        return MortalWriter(self._log.writer(name, delivery), self._fate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def runner(log: Log, kind: str, crash_at: str = "") -> Runner:
    """Make a runner that copies `source` to `sink`, or joins into `examples`, in small batches with many commits."""
    fate = Fate(crash_at)
    topics = ("source",) if kind == "copy" else ("predictions", "labels")
    config = RunnerConfig(topics, kind, f"{kind}-writer", "a", Sharing.TOGETHER, commit_interval=0.0)
    step = MortalStep(Stateless(_copied) if kind == "copy" else _join(log), fate)
    return Runner(MortalLog(log, fate), step, config, batch=BatchSize(smallest=8, largest=8))


def _copied(batch: Batch) -> list[Out]:
    return [Out("sink", record.key, record.value, partition=record.partition) for record in batch.records]


def _join(log: Log) -> JoinStep:
    return JoinStep(log, POLICY, predictions="predictions", labels="labels", examples="examples")


def main(path: str, kind: str) -> None:
    runner(SqliteLog(path), kind, os.environ["CRASH_AT"]).run(threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
