"""A child process: our worker, as `tailrace worker` runs it, with its metrics, and what it did."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from prometheus_client import generate_latest

from benchmarks.harness import job, say, when_stopped
from benchmarks.workload import pipeline
from tailrace.app.roles import spare_the_collector
from tailrace.declaration.pipeline import Topics
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.serving.live_model import LiveModel
from tailrace.inference.serving.scoring import Scored, ScoreStep
from tailrace.monitoring.telemetry.cost import CostCollector, ResourcePrices
from tailrace.monitoring.telemetry.lag import LagCollector
from tailrace.monitoring.telemetry.metrics import Metrics
from tailrace.monitoring.telemetry.observers import WorkerObserver
from tailrace.streams.log.base import Batch, Delivery, Log, Reader
from tailrace.streams.log.url import open_log
from tailrace.streams.runtime.batch_size import BatchSize
from tailrace.streams.runtime.runner import Observer, Runner, RunnerConfig, Stateless

_LOADED_S = 30.0
_BATCH_MAX = 4_096  # as the settings' default


class Job(msgspec.Struct, frozen=True):
    """What to run. It ends when `events` have been read or `swaps` made (0: any number), or when told to.

    `frozen` and `linger_ms` are for the loop written by hand. `turn`: after how many events metrics are kept, or not
    kept, in turns (0: they always are).
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
    turn: int = 0


class Turn(msgspec.Struct, frozen=True):
    """Some events with metrics, or without; `cpu_seconds`: what the process has used of all cores."""

    metrics: bool
    events: int
    seconds: float
    cpu_seconds: float


class Report(msgspec.Struct, frozen=True):
    """What happened. `seconds`: from the first batch read to the last commit; times on this process's clock.
    `scrape_s`: processor seconds of showing all metrics once."""

    events: int
    seconds: float
    aborts: int
    batches: list[tuple[float, int, float]]  # when it ended, events, seconds
    commits: list[float]  # how long each held up the loop
    swaps: list[tuple[float, float]]  # when, pause
    refusals: list[str]
    resident: list[int]  # bytes, after each swap
    turns: list[Turn]
    scrape_s: float


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


class Recorder(Observer):
    """Feeds the metrics as always, or in turns, and keeps single values."""

    def __init__(self, job: Job, stop: threading.Event, metrics: WorkerObserver) -> None:
        self._job, self._stop, self._metrics = job, stop, metrics
        self._told: Observer = metrics
        self._began = (0, 0.0, 0.0)  # the turn: events, clock, processor seconds
        self.turns: list[Turn] = []
        self.events = self.aborts = 0
        self.batches: list[tuple[float, int, float]] = []
        self.commits: list[float] = []
        self.swaps: list[tuple[float, float]] = []
        self.refusals: list[str] = []
        self.resident: list[int] = []

    def scored(self, batch: Scored) -> None:
        if self._told is self._metrics:
            self._metrics.scored(batch)

    def took(self, batch: Batch) -> None:
        self._told.took(batch)

    def idle(self) -> None:
        self._told.idle()

    def batch(self, read: int, written: int, seconds: float) -> None:
        self._told.batch(read, written, seconds)
        if read:
            self.batches.append((time.perf_counter(), read, seconds))
        self.events += read
        if self._job.turn and self.events - self._began[0] >= self._job.turn:
            self._take_turns()
        if 0 < self._job.events <= self.events:
            self._stop.set()

    def _take_turns(self) -> None:
        now = (self.events, time.perf_counter(), time.process_time())
        events, seconds, cpu_seconds = (after - before for after, before in zip(now, self._began, strict=True))
        on = self._told is self._metrics
        if self._began[1]:
            self.turns.append(Turn(on, int(events), seconds, cpu_seconds))
        self._told = Observer() if on else self._metrics
        self._began = now

    def committed(self, seconds: float) -> None:
        self._told.committed(seconds)
        self.commits.append(seconds)

    def aborted(self) -> None:
        self._told.aborted()
        self.aborts += 1

    def rebalanced(self, kind: str, partitions: int) -> None:
        self._told.rebalanced(kind, partitions)
        say("ready")

    def swapped(self, old: int, new: int, pause_s: float, load_s: float) -> None:
        self._metrics.swapped(old, new, pause_s, load_s)
        self.swaps.append((time.perf_counter(), pause_s))
        self.resident.append(_resident())
        if 0 < self._job.swaps <= len(self.swaps):
            self._stop.set()

    def refused(self, version: int, reason: str) -> None:
        self._metrics.refused(version, reason)
        self.refusals.append(reason)


def run(job: Job, stop: threading.Event) -> Report:
    """Work until the job is done."""
    metrics = Metrics()
    observed = WorkerObserver(metrics)
    recorder = Recorder(job, stop, observed)
    log = open_log(job.url)
    timed: Any = Timed(log)
    declared = pipeline(job.name)
    spec, topics = ModelSpec.of(declared), job.topics
    trusted = TrustedKeys([job.key.encode()])
    with LiveModel(
        log, topics.models, spec, trusted=trusted, on_swap=recorder.swapped, on_refusal=recorder.refused
    ) as live:
        live.wait_for(1, _LOADED_S)
        live.current()
        step = ScoreStep(declared.schema, spec.features, live, topics.predictions, on_batch=recorder.scored)
        config = RunnerConfig(
            topics=(topics.events,),
            group=f"{topics.predictions}-worker",  # each output begins at the beginning
            writer=f"{topics.predictions}-worker",
            delivery=job.delivery,
            commit_interval=job.commit_interval,
        )
        metrics.registry.register(LagCollector(log, config.group, config.topics, observed.reached))
        metrics.registry.register(CostCollector("inference", ResourcePrices()))
        spare_the_collector()
        Runner(timed, Stateless(step), config, batch=BatchSize(largest=_BATCH_MAX), observer=recorder).run(stop)
    began = time.process_time()
    generate_latest(metrics.registry)
    scrape_s = time.process_time() - began
    log.close()
    return Report(
        recorder.events, timed.last - timed.first, recorder.aborts, recorder.batches, recorder.commits,
        recorder.swaps, recorder.refusals, recorder.resident, recorder.turns, scrape_s,
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
