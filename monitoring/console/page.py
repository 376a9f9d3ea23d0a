"""What the page shows, as a fold over the log's records (pure): bounded, whatever comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from tailrace.declaration.event import Event
from tailrace.declaration.task import Task
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import target_array
from tailrace.inference.serving.loader import Serving
from tailrace.monitoring.console.dead_letters import Letters
from tailrace.monitoring.console.history import History, ReadReport, Run
from tailrace.monitoring.console.quality import Measure, Quality
from tailrace.monitoring.console.redaction import Mask
from tailrace.monitoring.console.tail import SAMPLE, Tail
from tailrace.monitoring.console.verdict import Signs, verdict
from tailrace.streams.log.codec import Codec
from tailrace.streams.log.records import Example, Prediction, Record

LIVE, BASE, FROZEN = "live", "base", "frozen"
_RATE_S = 5.0  # over which rates are told
_MARGIN, _JUDGED = 1.05, 5_000  # a loss so many times the base rate's, over so many examples, is worse than noise
_timestamp = attrgetter("timestamp")


class Names(NamedTuple):
    """The topics of a pipeline."""

    events: str
    predictions: str
    labels: str
    examples: str
    models: str
    dead: tuple[str, ...]


class Subject(NamedTuple):
    """The pipeline that is looked at. `base` is release 0."""

    name: str
    label: str
    topics: Names
    event: type[Event]
    features: Features
    task: Task
    base: Serving


class Shifts(Protocol):
    """How unlike the first inputs the newest ones are."""

    def see(self, inputs: Inputs) -> None:
        """The next inputs."""

    def section(self) -> dict[str, Any]:
        """By feature, the most unlike first."""


class Waiting(NamedTuple):
    """What the next run may depend on: the last one, labels since it, and `clock`, the newest event's time."""

    last_run: Run | None
    labels: int
    champion_since: float | None
    now: float
    clock: float


class Lent(NamedTuple):
    """What packages know that the console does not import. `upcoming`: when the next run comes, in words."""

    measure: Measure
    read_report: ReadReport
    shifts: Shifts
    upcoming: Callable[[Waiting], str | None]


class Flow(NamedTuple):
    """Where the log stands: the sum of each topic's end positions, and how far each role is behind (None: unknown)."""

    ends: Mapping[str, int]
    lags: Mapping[str, int | None]


class View:
    """Give it records and where the log stands; it gives sections."""

    def __init__(self, subject: Subject, lent: Lent, masked: Iterable[str] = ()) -> None:
        self._subject, self._lent = subject, lent
        mask = Mask(masked)
        self.history = History(lent.read_report)
        self.clock = 0.0
        self.first: float | None = None
        self.frozen: Serving | None = None
        self.frozen_at = 0.0
        self.problem: str | None = None
        self._tail, self._letters = Tail(subject.task, mask), Letters(mask)
        self._quality = Quality(lent.measure)
        self._predictions, self._examples = Codec(Prediction), Codec(Example)
        self._flows: deque[tuple[float, Flow]] = deque(maxlen=64)
        self._last_prediction: float | None = None
        self._unmeasured = 0

    def take(self, records: Sequence[Record], now: float) -> None:
        """Records of any of the topics, in the log's order; `now` in unix seconds."""
        topics = self._subject.topics
        for topic, group in groupby(sorted(records, key=attrgetter("topic")), key=attrgetter("topic")):
            found = list(group)
            if topic == topics.predictions:
                self._predicted(found, now)
            elif topic == topics.examples:
                self._labelled(found)
            elif topic == topics.models:
                self.history.take(found)
            else:
                self._letters.take(found)

    def flows(self, flow: Flow, now: float) -> None:
        """Where the log stands at `now`."""
        self._flows.append((now, flow))

    def freeze(self, serving: Serving, now: float) -> None:
        """From now on, compare with this release as it is."""
        self.frozen, self.frozen_at = serving, now

    def sections(self, now: float) -> dict[str, Any]:
        """All of the page that the log tells."""
        models = {LIVE: "live model", BASE: "base rate (v0)"}
        if self.frozen is not None:
            models[FROZEN] = f"v{self.frozen.release}, frozen"
        return {
            "verdict": self._verdict(now),
            "flow": self._flow(now),
            "tail": self._tail.section(),
            "quality": self._quality.section(models) | {"marks": self.history.marks()},
            "drift": self._lent.shifts.section(),
            "timeline": self.history.timeline(),
            "releases": self.history.section(),
            "letters": self._letters.section(),
        }

    def _predicted(self, records: Sequence[Record], now: float) -> None:
        sampled = sorted(records, key=_timestamp)[-SAMPLE:]
        found = self._predictions.decode(sampled).items
        self._last_prediction = now
        if found:
            self._tail.predicted(found)
            self._tick(found[-1].time)
            self.history.scored(found[-1].release, sampled[-1].timestamp / 1000)

    def _labelled(self, records: Sequence[Record]) -> None:
        decoded = self._examples.decode(records)
        if not decoded.items:
            return
        examples, at = decoded.items, max(map(_timestamp, decoded.records)) / 1000
        self._tail.labelled(examples)
        self._tick(max(example.label_time for example in examples))
        try:
            inputs, scores, targets = self._arrays(examples)
        except (ValueError, msgspec.DecodeError):  # another declaration's
            self._unmeasured += len(examples)
            return
        self._lent.shifts.see(inputs)
        models = {LIVE: scores, BASE: np.asarray(self._subject.base.score(inputs))}
        if self.frozen is not None and at >= self.frozen_at:
            models[FROZEN] = self.frozen.score(inputs)
        self._quality.take(at, models, targets)

    def _arrays(self, examples: Sequence[Example]) -> tuple[Inputs, Any, Any]:
        """Inputs, scores [n, outputs] and targets [n]. Raises ValueError, DecodeError."""
        kind = list[self._subject.event]  # type: ignore[name-defined]
        events = msgspec.json.decode(b"[" + b",".join(bytes(e.features) for e in examples) + b"]", type=kind)
        task = self._subject.task
        scores = np.array([e.scores for e in examples], np.float32)
        if scores.shape != (len(examples), task.outputs):
            raise ValueError(f"scores {scores.shape} do not fit")
        targets = target_array([task.target(e.label) for e in examples], task)
        return ModelSpec.of(self._subject).features.encode(events), scores, targets

    def _tick(self, time: float) -> None:
        self.clock = max(self.clock, time)
        if self.first is None:
            self.first = time

    def _flow(self, now: float) -> dict[str, Any]:
        if not self._flows:
            return {}
        newest_at, newest = self._flows[-1]
        since = next(((at, flow) for at, flow in self._flows if newest_at - at <= _RATE_S), self._flows[-1])
        seconds = newest_at - since[0]
        return {
            "clock": self.clock or None,
            "totals": newest.ends,
            "rates": {
                topic: None if seconds <= 0 else round((end - since[1].ends.get(topic, end)) / seconds, 1)
                for topic, end in newest.ends.items()
            },
            "lags": newest.lags,
            "unmeasured": self._unmeasured,
        }

    def _verdict(self, now: float) -> dict[str, Any]:
        history, flow = self.history, self._flows[-1][1] if self._flows else Flow({}, {})
        age = None if history.champion_since is None else max(0.0, now - history.champion_since)
        considered = sum(history.last_run.considered.values()) if history.last_run else 0
        labels = max(0, flow.ends.get("examples", 0) - considered)
        waiting = Waiting(history.last_run, labels, history.champion_since, now, self.clock)
        signs = Signs(
            problem=self.problem,
            waiting=flow.lags.get("worker") or 0,
            silent_s=None if self._last_prediction is None else now - self._last_prediction,
            champion=history.champion,
            champion_age_s=age,
            worse=self._worse(),
            upcoming=self._lent.upcoming(waiting),
        )
        return verdict(signs)._asdict() | {"updates": history.updates, "labels": history.labels}

    def _worse(self) -> str | None:
        """Whether the live model is worse than the base rate, beyond what chance would do."""
        live, base = (self._quality.newest(model, _JUDGED) for model in (LIVE, BASE))
        if not live or not base or not self.history.champion or self._quality.count(LIVE) < _JUDGED:
            return None
        metric = next(iter(live))
        if live[metric] <= _MARGIN * base[metric]:
            return None
        name = metric.replace("_", "-")
        return f"worse than the base rate: {name} {live[metric]:.3f} against {base[metric]:.3f}"
