"""From what workers and joiners report to metrics. Each takes None where nobody looks, and then counts for nobody."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from tailrace.inference.serving.scoring import Scored
from tailrace.monitoring.telemetry.lag import Reached
from tailrace.monitoring.telemetry.metrics import SCORING_STAGES, Metrics
from tailrace.streams.join.state import Counts
from tailrace.streams.log.base import Batch
from tailrace.streams.log.codec import Malformed
from tailrace.streams.runtime.runner import Observer

_SAMPLED = 8  # events of a batch whose times are looked at


class RunnerObserver(Observer):
    """Batches, commits, rebalances and aborts of a runner, how far it has come, and its health.

    A runner without partitions, or thrown back, is about to restore what its step knows. That may take minutes, and
    whoever restarted it meanwhile would make it begin again: it is not judged until it goes on.
    """

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics or Metrics()
        self._stream = self._metrics.stream
        self.reached = Reached()
        self._held = 0  # partitions
        self._queued = 0  # records

    def took(self, batch: Batch) -> None:
        """See `Observer`."""
        self.reached.took(batch)

    def batch(self, read: int, written: int, seconds: float) -> None:
        """See `Observer`."""
        self._beat()
        if read:  # an empty one only says that a partition's end was reached
            self._queued += read
            self._stream.queue_records.set(self._queued)
            self._stream.batch_records.observe(read)
            self._stream.batch_seconds.observe(seconds)

    def idle(self) -> None:
        """See `Observer`."""
        self._beat()

    def committed(self, seconds: float) -> None:
        """See `Observer`."""
        self._beat()
        self._queued = 0
        self._stream.queue_records.set(0)
        self._stream.commit_seconds.observe(seconds)

    def rebalanced(self, kind: str, partitions: int) -> None:
        """See `Observer`."""
        self._held += partitions if kind == "assigned" else -partitions
        self._beat()
        self._stream.rebalances.labels(kind).inc()
        if kind != "assigned":
            self.reached.forget()

    def aborted(self) -> None:
        """See `Observer`."""
        self._queued = 0
        self._stream.queue_records.set(0)
        self.reached.forget()
        self._metrics.health.rest()
        self._stream.aborts.inc()

    def _beat(self) -> None:
        health = self._metrics.health
        health.beat() if self._held else health.rest()


def count_malformed(metrics: Metrics | None) -> Callable[[Iterable[Malformed]], None]:
    """Counts records that could not be used, by reason."""
    dead_letters = (metrics or Metrics()).stream.dead_letters

    def count(letters: Iterable[Malformed]) -> None:
        for reason, many in Counter(letter.reason for letter in letters).items():
            dead_letters.labels(reason).inc(many)

    return count


class WorkerObserver(RunnerObserver):
    """What a worker's runner, score step and live model report. Release 0 serves until the first swap."""

    def __init__(self, metrics: Metrics | None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(metrics)
        self._clock = clock
        self._waiting: list[tuple[list[float], int]] = []  # event times, and how many each stands for
        inference, self._release = self._metrics.inference, self._metrics.release
        self._newest = -math.inf
        *self._stages, self._commits = (inference.stage_seconds.labels(stage) for stage in SCORING_STAGES)
        self._predicted = inference.events.labels("predicted")
        self._dead = inference.events.labels("dead_letter")
        self._malformed = count_malformed(self._metrics)
        self._end_to_end, self._prediction = inference.end_to_end_seconds, inference.prediction_seconds
        self._read: list[tuple[float, int]] = []  # when batches were read, and their sizes
        self._serves(0, 0.0)

    def took(self, batch: Batch) -> None:
        """See `Observer`."""
        super().took(batch)
        if batch.records:
            self._read.append((self._clock(), len(batch.records)))

    def scored(self, batch: Scored) -> None:
        """For `ScoreStep(on_batch=)`."""
        self._predicted.inc(batch.rows)
        seconds = (batch.decode_s, batch.features_s, batch.predict_s, batch.encode_s)
        for stage, took in zip(self._stages, seconds, strict=True):
            stage.observe(took)
        if batch.malformed:
            self._dead.inc(len(batch.malformed))
            self._malformed(batch.malformed)
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
        """See `Observer`."""
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
        """See `Observer`."""
        super().aborted()
        self._waiting, self._read = [], []

    def swapped(self, old: int, new: int, pause_s: float, load_s: float, trained_through: float = 0.0) -> None:
        """For `LiveModel(on_swap=)`, with the time of the newest event that the new release has learned."""
        self._serves(new, trained_through)
        self._release.swap_pause_seconds.observe(pause_s)
        self._release.release_load_seconds.observe(load_s)
        if new < old:
            self._release.rollbacks.inc()

    def refused(self, version: int, reason: str) -> None:
        """For `LiveModel(on_refusal=)`."""
        self._release.refusals.labels(reason).inc()

    def _serves(self, version: int, trained_through: float) -> None:
        self._release.model_info.clear()
        self._release.model_info.labels("champion", str(version)).set(1)
        self._release.trained_through.labels("champion").set(trained_through)


class JoinStatistics(Protocol):
    """What is asked of a join step: see `tailrace.streams.join.step.JoinStep`."""

    @property
    def counts(self) -> Counts: ...
    @property
    def dead_letters(self) -> Counter[str]: ...
    @property
    def delays(self) -> list[float]: ...
    def held(self) -> int: ...
    def held_bytes(self) -> int: ...
    def watermark(self) -> float: ...
    def newest(self) -> float: ...


class JoinerObserver(RunnerObserver):
    """What a joiner's runner reports, and at each commit what the join has done since the last."""

    def __init__(self, metrics: Metrics | None, step: JoinStatistics) -> None:
        super().__init__(metrics)
        self._step, self._join = step, self._metrics.join
        self._outcomes = {outcome: self._join.outcomes.labels(outcome) for outcome in Counts.__struct_fields__}
        self._told, self._dead = Counts(), Counter[str]()

    def committed(self, seconds: float) -> None:
        """See `Observer`."""
        super().committed(seconds)
        step, join = self._step, self._join
        told, self._told = self._told, msgspec.structs.replace(step.counts)
        for outcome, counter in self._outcomes.items():
            if more := getattr(self._told, outcome) - getattr(told, outcome):
                counter.inc(more)
        if step.dead_letters != self._dead:
            for reason, count in (step.dead_letters - self._dead).items():
                self._stream.dead_letters.labels(reason).inc(count)
            self._dead = Counter(step.dead_letters)
        join.label_delay_seconds.observe(step.delays)
        join.held_records.set(step.held())
        join.held_bytes.set(step.held_bytes())
        if math.isfinite(watermark := step.watermark()):
            join.watermark.set(watermark)
        if math.isfinite(newest := step.newest()):
            self._stream.last_event.set(newest)
