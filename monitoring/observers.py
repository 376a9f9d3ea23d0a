"""From what roles report to metrics. Each takes None where nobody looks, and then counts for nobody."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from inference.scoring import Scored
from monitoring.metrics import Metrics
from streams.joining import Counts
from streams.runner import Observer

_TRIGGERS = {  # reasons hold numbers, which would be too many labels: words by which they tell each trigger
    "schedule ": "schedule",
    "champion is ": "age",
    "loss rose": "drift",
    "shifted: ": "drift",
    "(should be ": "below",
    "a run saves ": "worthwhile",
    "new labels (every": "labels",
}


class RunnerObserver(Observer):
    """Batches, commits, rebalances and aborts of a runner, and its health.

    A runner without partitions, or thrown back, is about to restore what its step knows. That may take minutes, and
    whoever restarted it meanwhile would make it begin again: it is not judged until it goes on.
    """

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics or Metrics()
        self._held = 0  # partitions

    def batch(self, read: int, written: int, seconds: float) -> None:
        """See `Observer`."""
        self._beat()
        if read:  # an empty one only says that a partition's end was reached
            self._metrics.batch_records.observe(read)
            self._metrics.batch_seconds.observe(seconds)

    def idle(self) -> None:
        """See `Observer`."""
        self._beat()

    def committed(self, seconds: float) -> None:
        """See `Observer`."""
        self._beat()
        self._metrics.commit_seconds.observe(seconds)

    def rebalanced(self, kind: str, partitions: int) -> None:
        """See `Observer`."""
        self._held += partitions if kind == "assigned" else -partitions
        self._beat()
        self._metrics.rebalances.labels(kind).inc()

    def aborted(self) -> None:
        """See `Observer`."""
        self._metrics.health.rest()
        self._metrics.aborts.inc()

    def _beat(self) -> None:
        health = self._metrics.health
        health.beat() if self._held else health.rest()


class Inference(RunnerObserver):
    """What a worker's runner, score step and live model report. Release 0 serves until the first swap."""

    def __init__(self, metrics: Metrics | None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(metrics)
        self._clock = clock
        self._newest: float | None = None
        self._stages = [self._metrics.stage_seconds.labels(s) for s in ("decode", "features", "predict", "encode")]
        self._metrics.model_info.labels("champion", "0").set(1)

    def scored(self, batch: Scored) -> None:
        """For `ScoreStep(on_batch=)`."""
        metrics = self._metrics
        metrics.events.labels("predicted").inc(batch.rows)
        seconds = (batch.decode_s, batch.features_s, batch.predict_s, batch.encode_s)
        for stage, took in zip(self._stages, seconds, strict=True):
            stage.observe(took)
        if batch.malformed:
            metrics.events.labels("dead_letter").inc(len(batch.malformed))
            for reason, count in Counter(letter.reason for letter in batch.malformed).items():
                metrics.dead_letters.labels(reason).inc(count)
        if batch.newest is not None:
            self._newest = max(batch.newest, self._newest or batch.newest)

    def committed(self, seconds: float) -> None:
        """See `Observer`."""
        super().committed(seconds)
        newest, self._newest = self._newest, None
        if newest is not None:
            self._metrics.end_to_end_seconds.observe(max(0.0, self._clock() - newest))

    def swapped(self, old: int, new: int, pause_s: float, load_s: float) -> None:
        """For `LiveModel(on_swap=)`."""
        metrics = self._metrics
        metrics.model_info.clear()
        metrics.model_info.labels("champion", str(new)).set(1)
        metrics.swap_pause_seconds.observe(pause_s)
        metrics.release_load_seconds.observe(load_s)

    def refused(self, version: int, reason: str) -> None:
        """For `LiveModel(on_refusal=)`."""
        self._metrics.refusals.labels(reason).inc()


class Joined(Protocol):
    """What is asked of a join step."""

    @property
    def counts(self) -> Counts:
        """What became of predictions and labels since the step was made."""

    def held(self) -> int:
        """How many records wait in memory."""


class Joining(RunnerObserver):
    """What a joiner's runner reports, and at each commit what the join has done since the last."""

    def __init__(self, metrics: Metrics | None, step: Joined) -> None:
        super().__init__(metrics)
        self._step = step
        self._told = Counts()

    def committed(self, seconds: float) -> None:
        """See `Observer`."""
        super().committed(seconds)
        told, self._told = self._told, msgspec.structs.replace(self._step.counts)
        for outcome in Counts.__struct_fields__:
            self._metrics.join_outcomes.labels(outcome).inc(getattr(self._told, outcome) - getattr(told, outcome))
        self._metrics.join_held_records.set(self._step.held())


class Run(Protocol):
    """What is asked of the report of a retraining run: its reason in words, and when it ended (`at`, unix seconds)."""

    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def total_s(self) -> float: ...
    @property
    def at(self) -> float: ...


class Update(Protocol):
    """What is asked of the report of an online update."""

    @property
    def outcome(self) -> str: ...
    @property
    def labels(self) -> int: ...
    @property
    def total_s(self) -> float: ...


class Retraining:
    """What a retrainer reports."""

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics or Metrics()

    def ran(self, run: Run) -> None:
        """For `Retrainer(on_run=)`."""
        trigger = next((name for words, name in _TRIGGERS.items() if words in run.reason), "other")
        self._metrics.retrain_runs.labels(trigger, run.outcome).inc()
        self._metrics.retrain_seconds.observe(run.total_s)
        if run.outcome == "published":
            self._metrics.retrain_last_success_timestamp_seconds.set(run.at)

    def progressed(self, step: int, steps: int, loss: float) -> None:
        """For `Retrainer(on_progress=)`."""
        self._metrics.retrain_progress.set(step / steps)
        self._metrics.retrain_loss.set(loss)

    def updated(self, update: Update) -> None:
        """For `Retrainer(on_update=)`."""
        self._metrics.updates.labels(update.outcome).inc()
        self._metrics.update_seconds.observe(update.total_s)
        if update.outcome == "published":
            self._metrics.updated_labels.inc(update.labels)
