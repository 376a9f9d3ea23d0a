"""The page as a fold over the records of a pipeline's log (pure); memory is bounded, whatever comes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tailrace.declaration.facts import Facts
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import Scores, Targets
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import target_array
from tailrace.inference.serving.loader import Serving, base_rate_serving
from tailrace.monitoring.console.dead_letters import DeadLetterTable
from tailrace.monitoring.console.drift_table import DriftTable
from tailrace.monitoring.console.history import ReleaseHistory
from tailrace.monitoring.console.quality import QualityCurves
from tailrace.monitoring.console.redaction import Redaction
from tailrace.monitoring.console.status import StatusInputs, describe_next_run, status
from tailrace.monitoring.console.tail import SAMPLE, LiveTail
from tailrace.streams.log.codec import UNDECODABLE, Codec
from tailrace.streams.log.records import Example, Prediction, Record

LIVE, BASE, FROZEN = "live", "base", "frozen"
_RATE_S = 5.0  # seconds over which rates are measured
_MARGIN, _COMPARED = 1.05, 5_000  # this much more loss than the base rate, over this many examples, is beyond noise
_topic, _timestamp = attrgetter("topic"), attrgetter("timestamp")


class LogState(NamedTuple):
    """Record counts, consumer lags and unconsidered examples of a pipeline's log, as read at one time."""

    counts: Mapping[str, int]
    """Records in each topic, by the topic's name in `Topics`."""
    lags: Mapping[str, int | None]
    """Lag of each role in records; None: unknown."""
    new_labels: int = 0
    """Examples that the last run did not consider."""


class ConsolePage:
    """State of the page: built from records and log states, and rendered as sections. Wall times are arguments."""

    def __init__(self, pipeline: Pipeline, redacted: Iterable[str] = ()) -> None:
        self._pipeline = pipeline
        self._features = ModelSpec.of(pipeline).features
        self._base = base_rate_serving(pipeline.task, pipeline.label.base_rate)
        redaction = Redaction(redacted)
        self.history = ReleaseHistory()
        self.problem: str | None = None
        """Reason why the log cannot be read; the page shows it."""
        self.event_time: float | None = None
        """Newest event or label time seen, unix seconds."""
        self.first_event_time: float | None = None
        self.frozen: Serving | None = None
        """Release that was kept as a reference."""
        self._frozen_at = 0.0
        self._tail, self._dead_letters = LiveTail(pipeline.task, redaction), DeadLetterTable(redaction)
        self._quality = QualityCurves(pipeline.task.kind)
        self._drift = DriftTable(self._features, pipeline.retrain)
        self._predictions, self._examples = Codec(Prediction), Codec(Example)
        self._log_states: deque[tuple[float, LogState]] = deque(maxlen=64)
        self._began: float | None = None
        self._last_prediction: float | None = None
        self._label_times: tuple[float, float] | None = None  # oldest of the first batch, newest
        self._unmeasured = 0

    def take(self, records: Sequence[Record], now: float) -> None:
        """Add records of any of the topics, in the order of the log; `now` in unix seconds."""
        if self._began is None:
            self._began = now
        topics = self._pipeline.topics
        for topic, group in groupby(sorted(records, key=_topic), key=_topic):
            part = list(group)
            if topic == topics.predictions:
                self._take_predictions(part, now)
            elif topic == topics.examples:
                self._take_examples(part)
            elif topic == topics.models:
                self._take_models(part)
            else:
                self._dead_letters.take(part)

    def take_log_state(self, state: LogState, now: float) -> None:
        """Store the state of the log at `now`, unix seconds."""
        self._log_states.append((now, state))

    def freeze(self, serving: Serving, now: float) -> None:
        """Keep a release as a frozen reference: examples from `now` on are also scored with it."""
        self.frozen, self._frozen_at = serving, now

    def sections(self, now: float) -> dict[str, Any]:
        """All sections that the log gives, at `now`."""
        models = {LIVE: "live model", BASE: "base rate (v0)"}
        if self.frozen is not None:
            models[FROZEN] = f"v{self.frozen.release}, frozen"
        return {
            "status": self._status(now),
            "flow": self._flow(),
            "tail": self._tail.section(),
            "quality": self._quality.section(models) | {"marks": self.history.marks()},
            "drift": self._drift.section(),
            "timeline": self.history.timeline(),
            "releases": self.history.section(),
            "dead_letters": self._dead_letters.section(),
        }

    def _take_predictions(self, records: Sequence[Record], now: float) -> None:
        sampled = sorted(records, key=_timestamp)[-SAMPLE:]
        predictions = self._predictions.decode(sampled).items
        self._last_prediction = now
        if predictions:
            self._tail.predicted(predictions)
            self._advance(predictions[-1].time)
            self.history.scored(predictions[-1].release, sampled[-1].timestamp / 1000)

    def _take_examples(self, records: Sequence[Record]) -> None:
        decoded = self._examples.decode(records)
        if not decoded.items:
            return
        examples, at = decoded.items, max(map(_timestamp, decoded.records)) / 1000
        self._tail.labelled(examples)
        times = np.array([example.label_time for example in examples])
        oldest, newest = float(times.min()), float(times.max())
        self._advance(newest)
        self._label_times = (
            (oldest, newest) if self._label_times is None else (self._label_times[0], max(self._label_times[1], newest))
        )
        try:
            inputs, scores, targets = self._arrays(examples)
        except (ValueError, *UNDECODABLE):  # written under another declaration
            self._unmeasured += len(examples)
            return
        self._drift.take(inputs)
        models: dict[str, Scores] = {LIVE: scores, BASE: np.asarray(self._base.score(inputs))}
        if self.frozen is not None and at >= self._frozen_at:
            models[FROZEN] = np.asarray(self.frozen.score(inputs))
        self._quality.take(times, models, targets)

    def _take_models(self, records: Sequence[Record]) -> None:
        newest = None if self._label_times is None else self._label_times[1]
        for record in records:
            live = self._began is not None and record.timestamp / 1000 >= self._began
            self.history.take([record], newest if live else None)

    def _arrays(self, examples: Sequence[Example]) -> tuple[Inputs, Scores, Targets]:
        """Inputs, scores [n, outputs] and targets [n]. Raises ValueError, DecodeError."""
        kind = list[self._pipeline.schema.event]  # type: ignore[name-defined]
        events = msgspec.json.decode(b"[" + b",".join(bytes(e.features) for e in examples) + b"]", type=kind)
        task = self._pipeline.task
        scores = np.array([e.scores for e in examples], np.float32)
        if scores.shape != (len(examples), task.outputs):
            raise ValueError(f"scores {scores.shape} instead of ({len(examples)}, {task.outputs})")
        targets = target_array([task.target(e.label) for e in examples], task)
        return self._features.encode(events), scores, targets

    def _advance(self, time: float) -> None:
        self.event_time = time if self.event_time is None else max(self.event_time, time)
        if self.first_event_time is None:
            self.first_event_time = time

    def _flow(self) -> dict[str, Any]:
        if not self._log_states:
            return {}
        newest_at, newest = self._log_states[-1]
        since, before = next((at, state) for at, state in self._log_states if newest_at - at <= _RATE_S)
        seconds = newest_at - since
        return {
            "clock": self.event_time,
            "totals": newest.counts,
            "rates": {
                topic: None if seconds <= 0 else round((count - before.counts.get(topic, count)) / seconds, 1)
                for topic, count in newest.counts.items()
            },
            "lags": newest.lags,
            "unmeasured": self._unmeasured,
        }

    def _status(self, now: float) -> dict[str, Any]:
        history = self.history
        state = self._log_states[-1][1] if self._log_states else LogState({}, {})
        inputs = StatusInputs(
            problem=self.problem,
            waiting=state.lags.get("worker") or 0,
            silent_s=None if self._last_prediction is None else now - self._last_prediction,
            champion=history.champion,
            champion_age_s=None if history.champion_since is None else max(0.0, now - history.champion_since),
            worse=self._worse(),
            next_run=self._next_run(state, now),
        )
        return status(inputs)._asdict() | {"updates": history.updates, "labels": history.labels}

    def _next_run(self, state: LogState, now: float) -> str | None:
        plan = self._pipeline.training
        return describe_next_run(
            self._pipeline.retrain,
            self.facts(state.new_labels, now),
            event_clock=plan.clock == "event",
            missing=plan.min_examples - state.counts.get("examples", 0),
        )

    def facts(self, labels: int, now: float) -> Facts:
        """The facts of the triggers, as far as the log gives them, on the declared clock (wall or event).

        `labels`: examples that the last run did not consider. The retrainer alone knows the measurements of Drift,
        Below and Worthwhile. Before the first run a schedule on the wall clock counts from `now`, as the retrainer's
        start is unknown.
        """
        last, published = self.history.last_run, self.history.last_published
        if self._pipeline.training.clock == "wall":
            since = last.since if last else now
            return Facts(now, since, labels, created=published.at if published else None)
        oldest, newest = self._label_times or (math.inf, -math.inf)
        since = last.since if last else oldest
        return Facts(newest, since, labels, created=published.since if published else None)

    def _worse(self) -> str | None:
        """Return a phrase that compares the live model with the base rate; None unless it is worse beyond noise."""
        live, base = (self._quality.newest(model, _COMPARED) for model in (LIVE, BASE))
        if not live or not base or not self.history.champion or self._quality.count(LIVE) < _COMPARED:
            return None
        metric = next(iter(live))
        if live[metric] <= _MARGIN * base[metric]:
            return None
        name = metric.replace("_", "-")
        return f"worse than the base rate: {name} {live[metric]:.3f} against {base[metric]:.3f}"
