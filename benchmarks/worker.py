"""A child process: our worker, as `tailrace worker` runs it, with its metrics, and what it did."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.harness import job, say, when_stopped
from benchmarks.workload import pipeline
from inference.keys import TrustedKeys
from inference.live import LiveModel
from inference.scoring import ScoreStep
from monitoring.metrics import Metrics
from monitoring.observers import Inference
from streams.batching import BatchSize
from streams.connect import open_log
from streams.log import Delivery, Log, Reader
from streams.runner import Runner, RunnerConfig, Stateless
from tailrace.pipeline import Topics
from tailrace.roles import spare_the_collector

_LOADED_S = 30.0
_BATCH_MAX = 4_096  # as the settings' default


class Job(msgspec.Struct, frozen=True):
    """What to run. It ends when `events` have been read or `swaps` made (0: any number), or when told to.

    `frozen` and `linger_ms` are for the loop written by hand.
    """

    url: str
    name: str
    topics: Topics
    delivery: Delivery
    commit_interval: float
    key: str
    events: int = 0
    frozen: bool = True
    swaps: int = 0
    linger_ms: float = 5


class Report(msgspec.Struct, frozen=True):
    """What happened. `seconds`: from the first batch read to the last commit; times on this process's clock."""

    events: int
    seconds: float
    aborts: int
    batches: list[tuple[float, int, float]]  # when it ended, events, seconds
    commits: list[float]  # how long each held up the loop
    swaps: list[tuple[float, float]]  # when, pause
    refusals: list[str]
    resident: list[int]  # bytes, after each swap


class Timed:
    """A log whose reader is timed: from its first records to its close, before which all has been committed."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.first = self.last = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def reader(self, *args: Any, **options: Any) -> Reader:
        """The log's reader; it says "ready" when it begins."""
        reader: Any = self._log.reader(*args, **options)
        read, close = reader.read, reader.close

        def timed_read(max_records: int, timeout: float) -> Any:
            batch = read(max_records, timeout)
            if batch.records:
                self.first = time.perf_counter()
                reader.read = read
            return batch

        def timed_close() -> None:
            self.last = time.perf_counter()
            close()

        reader.read, reader.close = timed_read, timed_close
        timed: Reader = reader
        return timed


class Recorder(Inference):
    """Feeds the metrics as always, and keeps single values."""

    def __init__(self, job: Job, stop: threading.Event) -> None:
        super().__init__(Metrics())
        self._job, self._stop = job, stop
        self.events = self.aborts = 0
        self.batches: list[tuple[float, int, float]] = []
        self.commits: list[float] = []
        self.swaps: list[tuple[float, float]] = []
        self.refusals: list[str] = []
        self.resident: list[int] = []

    def batch(self, read: int, written: int, seconds: float) -> None:
        super().batch(read, written, seconds)
        if read:
            self.batches.append((time.perf_counter(), read, seconds))
        self.events += read
        if 0 < self._job.events <= self.events:
            self._stop.set()

    def committed(self, seconds: float) -> None:
        super().committed(seconds)
        self.commits.append(seconds)

    def aborted(self) -> None:
        super().aborted()
        self.aborts += 1

    def rebalanced(self, kind: str, partitions: int) -> None:
        super().rebalanced(kind, partitions)
        say("ready")

    def swapped(self, old: int, new: int, pause_s: float, load_s: float) -> None:
        super().swapped(old, new, pause_s, load_s)
        self.swaps.append((time.perf_counter(), pause_s))
        self.resident.append(_resident())
        if 0 < self._job.swaps <= len(self.swaps):
            self._stop.set()

    def refused(self, version: int, reason: str) -> None:
        super().refused(version, reason)
        self.refusals.append(reason)


def run(job: Job, stop: threading.Event) -> Report:
    """Work until the job is done."""
    recorder = Recorder(job, stop)
    log = open_log(job.url)
    timed: Any = Timed(log)
    declared = pipeline(job.name)
    features, task, topics = declared.features, declared.task, job.topics
    trusted = TrustedKeys([job.key.encode()])
    with LiveModel(
        log, topics.models, features, task, trusted=trusted, on_swap=recorder.swapped, on_refusal=recorder.refused
    ) as live:
        live.wait_for(1, _LOADED_S)
        live.current()
        step = ScoreStep(declared.schema, features, live, topics.predictions, on_batch=recorder.scored)
        config = RunnerConfig(
            topics=(topics.events,),
            group=f"{topics.predictions}-worker",  # each output begins at the beginning
            writer=f"{topics.predictions}-worker",
            delivery=job.delivery,
            commit_interval=job.commit_interval,
        )
        spare_the_collector()
        Runner(timed, Stateless(step), config, batch=BatchSize(largest=_BATCH_MAX), observer=recorder).run(stop)
    log.close()
    return Report(
        recorder.events, timed.last - timed.first, recorder.aborts, recorder.batches, recorder.commits, recorder.swaps,
        recorder.refusals, recorder.resident,
    )  # fmt: skip


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0  # not Linux


def main() -> None:
    """Run the job given on the command line and tell what happened."""
    torch.set_num_threads(1)
    say(run(job(Job), when_stopped()))


if __name__ == "__main__":
    main()
