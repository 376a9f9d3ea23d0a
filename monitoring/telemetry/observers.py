"""Observers of workers and joiners: they turn reports into metrics. Without metrics (None) nothing is exported."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from tailrace.inference.serving.scoring import Scored
from tailrace.monitoring.telemetry.lag import Reached
from tailrace.monitoring.telemetry.loss_notice import EVERY_S, LossNotice, cause_of
from tailrace.monitoring.telemetry.metrics import SCORING_STAGES, Metrics
from tailrace.streams.join.state import Counts
from tailrace.streams.log.base import Batch
from tailrace.streams.log.codec import Malformed
from tailrace.streams.runtime.observer import Observer

_SAMPLED = 8  # events of a batch whose times are read


class RunnerObserver(Observer):
    """Observes a runner: batches, commits, rebalances, aborts, progress in time, and health.

    A runner without partitions, or after an abort, restores the state of its step. That may take minutes, and a restart
    would make it begin again. So its health is not judged until it continues.
    """

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics or Metrics()
        self._stream = self._metrics.stream
        self.reached = Reached()
        self._held = 0  # partitions
        self._queued = 0  # records
        self._notices: list[LossNotice] = []

    def took(self, batch: Batch) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self.reached.took(batch)

    def batch(self, read: int, written: int, seconds: float) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self._beat()
        if read:  # an empty batch only reports that the end of a partition was reached
            self._queued += read
            self._stream.queue_records.set(self._queued)
            self._stream.batch_records.observe(read)
            self._stream.batch_seconds.observe(seconds)

    def idle(self) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self._beat()

    def committed(self, seconds: float) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self._beat()
        self._queued = 0
        self._stream.queue_records.set(0)
        self._stream.commit_seconds.observe(seconds)

    def rebalanced(self, kind: str, partitions: int) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self._held += partitions if kind == "assigned" else -partitions
        self._beat()
        self._stream.rebalances.labels(kind).inc()
        if kind != "assigned":
            self.reached.forget()

    def aborted(self) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self._queued = 0
        self._stream.queue_records.set(0)
        self.reached.forget()
        self._metrics.health.rest()
        self._stream.aborts.inc()

    def set_aside(self, letter: Malformed) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        self._stream.dead_letters.labels(letter.reason).inc()

    def _beat(self) -> None:
        health = self._metrics.health
        health.beat() if self._held else health.rest()
        for notice in self._notices:
            notice.flush()


def count_malformed(metrics: Metrics | None) -> Callable[[Iterable[Malformed]], None]:
    """Return a function that counts malformed records by reason."""
    dead_letters = (metrics or Metrics()).stream.dead_letters

    def count(malformed: Iterable[Malformed]) -> None:
        for reason, number in Counter(record.reason for record in malformed).items():
            dead_letters.labels(reason).inc(number)

    return count


class WorkerObserver(RunnerObserver):
    """Observes a worker: its runner, score step and live model. Release 0 serves until the first swap."""

    def __init__(self, metrics: Metrics | None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(metrics)
        self._clock = clock
        self._waiting: list[tuple[list[float], int]] = []  # sampled event times, and the events that each stands for
        inference, self._release = self._metrics.inference, self._metrics.release
        self._newest = -math.inf
        *self._stages, self._commits = (inference.stage_seconds.labels(stage) for stage in SCORING_STAGES)
        self._predicted = inference.events.labels("predicted")
        self._dead = inference.events.labels("dead_letter")
        self._malformed = count_malformed(self._metrics)
        self._end_to_end, self._prediction = inference.end_to_end_seconds, inference.prediction_seconds
        self._read: list[tuple[float, int]] = []  # time of each read, and its number of records
        self._notices = [LossNotice("events became dead letters", "tailrace dlq ls --topic events")]
        self._serves(0, 0.0)

    def took(self, batch: Batch) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        super().took(batch)
        if batch.records:
            self._read.append((self._clock(), len(batch.records)))

    def scored(self, batch: Scored) -> None:
        """Report of a scored batch, for `ScoreStep(on_batch=)`."""
        self._predicted.inc(batch.rows)
        seconds = (batch.decode_s, batch.features_s, batch.predict_s, batch.encode_s)
        for stage, took in zip(self._stages, seconds, strict=True):
            stage.observe(took)
        if batch.malformed:
            self._dead.inc(len(batch.malformed))
            self._malformed(batch.malformed)
            self._notices[0].add(len(batch.malformed), cause_of(batch.malformed[0]))
        times = batch.times
        if times:
            step = -(-len(times) // _SAMPLED)
            sample = times[::step]
            self._waiting.append((sample, step))
            newest = max(times[-1], *sample)
            if newest > self._newest:
                self._newest = newest
                self._stream.last_event.set(newest)

    def committed(self, seconds: float) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        super().committed(seconds)
        self._commits.observe(seconds)
        waiting, self._waiting = self._waiting, []
        read, self._read = self._read, []
        now = self._clock()
        for began, records in read:
            self._prediction.observe((max(0.0, now - began),), records)
        for times, weight in waiting:
            self._end_to_end.observe([max(0.0, now - time) for time in times], weight)

    def aborted(self) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        super().aborted()
        self._waiting, self._read = [], []

    def set_aside(self, letter: Malformed) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        super().set_aside(letter)
        self._dead.inc()

    def swapped(self, old: int, new: int, pause_s: float, load_s: float, trained_through: float = 0.0) -> None:
        """Report of a swap, for `LiveModel(on_swap=)`. `trained_through`: newest event that `new` was trained on."""
        self._serves(new, trained_through)
        self._release.swap_pause_seconds.observe(pause_s)
        self._release.release_load_seconds.observe(load_s)
        if new < old:
            self._release.rollbacks.inc()

    def refused(self, version: int, reason: str) -> None:
        """Report of a refused release, for `LiveModel(on_refusal=)`."""
        self._release.refusals.labels(reason).inc()

    def _serves(self, version: int, trained_through: float) -> None:
        self._release.model_info.clear()
        self._release.model_info.labels("champion", str(version)).set(1)
        self._release.trained_through.labels("champion").set(trained_through)


class JoinStatistics(Protocol):
    """The statistics of `tailrace.streams.join.step.JoinStep` that become metrics; a test can do without the step."""

    @property
    def counts(self) -> Counts: ...
    @property
    def dead_letters(self) -> Counter[str]: ...
    @property
    def last_malformed(self) -> Malformed | None: ...
    @property
    def delays(self) -> list[float]: ...
    def held(self) -> int: ...
    def held_bytes(self) -> int: ...
    def watermark(self) -> float: ...
    def newest(self) -> float: ...


class JoinerObserver(RunnerObserver):
    """Observes a joiner: its runner, and at each commit the statistics of the join since the one before."""

    def __init__(self, metrics: Metrics | None, step: JoinStatistics) -> None:
        super().__init__(metrics)
        self._step, self._join = step, self._metrics.join
        self._outcomes = {outcome: self._join.outcomes.labels(outcome) for outcome in Counts.__struct_fields__}
        self._counted, self._dead = Counts(), Counter[str]()
        explain = "tailrace explain ID"
        self._dead_letters = LossNotice("labels became dead letters", "tailrace dlq ls --topic labels")
        self._unused = LossNotice("labels came too late, or for no open event", explain)
        self._expired = LossNotice("events got no label in time", explain, every=10 * EVERY_S)
        self._notices = [self._dead_letters, self._unused, self._expired]

    def committed(self, seconds: float) -> None:
        """See `tailrace.streams.runtime.observer.Observer`."""
        super().committed(seconds)
        step, join = self._step, self._join
        before, self._counted = self._counted, msgspec.structs.replace(step.counts)
        for outcome, counter in self._outcomes.items():
            if more := getattr(self._counted, outcome) - getattr(before, outcome):
                counter.inc(more)
        if step.dead_letters != self._dead:
            for reason, count in (step.dead_letters - self._dead).items():
                self._stream.dead_letters.labels(reason).inc(count)
                self._dead_letters.add(count, cause_of(step.last_malformed) if step.last_malformed else reason)
            self._dead = Counter(step.dead_letters)
        late, unmatched, expired = (
            getattr(self._counted, name) - getattr(before, name) for name in ("late", "unmatched", "expired")
        )
        self._unused.add(late + unmatched, f"late: {late}, without an event: {unmatched}")
        self._expired.add(expired, "see Label(wait=...)")
        join.label_delay_seconds.observe(step.delays)
        join.held_records.set(step.held())
        join.held_bytes.set(step.held_bytes())
        if math.isfinite(watermark := step.watermark()):
            join.watermark.set(watermark)
        if math.isfinite(newest := step.newest()):
            self._stream.last_event.set(newest)
