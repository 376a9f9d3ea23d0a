"""Child process that runs the worker as `tailrace worker` does, with metrics, and reports its measurements."""

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
from tailrace.declaration.pipeline import Topics
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.serving.live_model import LiveModel
from tailrace.inference.serving.loader import Loader
from tailrace.inference.serving.scoring import Scored, ScoreStep
from tailrace.monitoring.telemetry.cost import CostCollector, ResourcePrices
from tailrace.monitoring.telemetry.lag import LagCollector
from tailrace.monitoring.telemetry.metrics import Metrics
from tailrace.monitoring.telemetry.observers import WorkerObserver
from tailrace.streams.log.base import Batch, Delivery, Log, Reader
from tailrace.streams.log.url import open_log
from tailrace.streams.runtime.batch_size import BatchSize
from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector
from tailrace.streams.runtime.observer import Observer
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless

_LOADED_S = 30.0
_BATCH_MAX = 4_096  # as the settings' default


class Job(msgspec.Struct, frozen=True):
    """Job of a worker. It ends after `events` events or `swaps` swaps (0: no limit), or when the parent stops it.

    `frozen` and `linger_ms` apply to the hand-written loop. `turn`: number of events after which metrics are switched
    off or on (0: always on). `key`: the public key to trust, as PEM; `commit_interval` in seconds.
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
    """Consecutive events with metrics, or without. `cpu_seconds`: processor seconds of the process, all cores."""

    metrics: bool
    events: int
    seconds: float
    cpu_seconds: float


class Report(msgspec.Struct, frozen=True):
    """Measurements of a run. `seconds` count from the first batch read to the last commit; times are those of the
    process's performance counter. `scrape_s`: processor seconds of one scrape of all metrics."""

    events: int
    seconds: float
    aborts: int
    batches: list[tuple[float, int, float]]  # time of the end, events, seconds
    commits: list[float]  # seconds for which each held up the loop
    swaps: list[tuple[float, float]]  # time, seconds of the pause
    refusals: list[str]
    resident: list[int]  # bytes, after each swap
    turns: list[Turn]
    scrape_s: float


class Timed:
    """Log whose reader records two times: `first`, of its first records, and `last`, of its close after all commits."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.first = self.last = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def reader(self, *args: Any, **options: Any) -> Reader:
        """Open the reader of the log and time it."""
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
    """Observer that passes reports on to the metrics, always or in alternating turns, and keeps single values."""

    def __init__(self, job: Job, stop: threading.Event, metrics: WorkerObserver) -> None:
        self._job, self._stop, self._metrics = job, stop, metrics
        self._target: Observer = metrics
        self._turn_start = (0, 0.0, 0.0)  # events, clock, processor seconds
        self.turns: list[Turn] = []
        self.events = self.aborts = 0
        self.batches: list[tuple[float, int, float]] = []
        self.commits: list[float] = []
        self.swaps: list[tuple[float, float]] = []
        self.refusals: list[str] = []
        self.resident: list[int] = []

    def scored(self, batch: Scored) -> None:
        if self._target is self._metrics:
            self._metrics.scored(batch)

    def took(self, batch: Batch) -> None:
        self._target.took(batch)

    def idle(self) -> None:
        self._target.idle()

    def batch(self, read: int, written: int, seconds: float) -> None:
        self._target.batch(read, written, seconds)
        if read:
            self.batches.append((time.perf_counter(), read, seconds))
        self.events += read
        if self._job.turn and self.events - self._turn_start[0] >= self._job.turn:
            self._take_turns()
        if 0 < self._job.events <= self.events:
            self._stop.set()

    def _take_turns(self) -> None:
        now = (self.events, time.perf_counter(), time.process_time())
        events, seconds, cpu_seconds = (after - before for after, before in zip(now, self._turn_start, strict=True))
        on = self._target is self._metrics
        if self._turn_start[1]:
            self.turns.append(Turn(on, int(events), seconds, cpu_seconds))
        self._target = Observer() if on else self._metrics
        self._turn_start = now

    def committed(self, seconds: float) -> None:
        self._target.committed(seconds)
        self.commits.append(seconds)

    def aborted(self) -> None:
        self._target.aborted()
        self.aborts += 1

    def rebalanced(self, kind: str, partitions: int) -> None:
        self._target.rebalanced(kind, partitions)
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
    """Run the worker until the job is done."""
    metrics = Metrics()
    observed = WorkerObserver(metrics)
    recorder = Recorder(job, stop, observed)
    log = open_log(job.url)
    timed: Any = Timed(log)
    declared = pipeline(job.name)
    spec, topics = ModelSpec.of(declared), job.topics
    loader = Loader(spec, trusted=TrustedKeys([job.key.encode()]))
    with LiveModel(
        log,
        topics.models,
        loader,
        on_swap=lambda swap: recorder.swapped(swap.old, swap.new, swap.pause_s, swap.load_s),
        on_refusal=lambda refusal: recorder.refused(refusal.version, refusal.reason),
    ) as live:
        live.wait_for(1, _LOADED_S)
        live.current()
        step = ScoreStep(declared.schema, spec.features, live, topics.predictions, on_batch=recorder.scored)
        config = RunnerConfig(
            topics=(topics.events,),
            group=f"{topics.predictions}-worker",  # a new output topic starts at the first event
            writer=f"{topics.predictions}-worker",
            delivery=job.delivery,
            commit_interval=job.commit_interval,
        )
        metrics.registry.register(LagCollector(log, config.group, config.topics, observed.reached))
        metrics.registry.register(CostCollector("inference", ResourcePrices()))
        freeze_garbage_collector()
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
    """Run the job given on the command line and report the result to the parent."""
    torch.set_num_threads(1)
    say(run(job(Job), when_stopped()))


if __name__ == "__main__":
    main()
