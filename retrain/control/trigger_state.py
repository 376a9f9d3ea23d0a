"""Facts that triggers look at, kept up to date from examples and runs (deterministic).

    take(examples) ... facts(now) -> a trigger is due -> run_started(facts) -> take ... -> run_ended(seconds),
    published(...)

The same class serves the live retrainer and a backtest. Nothing here reads a clock, and the figures do not depend on
how examples were batched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.facts import Facts, Live
from tailrace.declaration.gate import Metric
from tailrace.declaration.task import Kind
from tailrace.declaration.triggers import Below, Drift, Trigger, Worthwhile
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import Scores, Targets, losses
from tailrace.retrain.control.drift import DriftMonitor
from tailrace.retrain.control.drift_level import Losses


class TriggerState:
    """Facts for the declared triggers, and no others: without triggers nothing is measured.

    `metric`: that of losses given without a name. `since`: start of the last run; infinite: the first label sets it.
    `created`: publication of the champion. Both are unix seconds on the plan's clock. `names`: columns of the numbers,
    then of the categories.
    """

    def __init__(
        self,
        triggers: Sequence[Trigger],
        *,
        metric: Metric = "log_loss",
        since: float = math.inf,
        created: float | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        drift = next((trigger for trigger in triggers if isinstance(trigger, Drift)), None)
        self._monitor: DriftMonitor | None = None
        if drift is not None:
            self._monitor = DriftMonitor(
                false_alarms=drift.false_alarms, effect=drift.effect, shift=drift.shift, names=names
            )
        self._metric: str = metric
        self._live = _windows(triggers)
        self._since, self._created = since, created
        self._labels = 0
        self._run_s: float | None = None
        self._events: float | None = None
        self.newest = -math.inf
        """The newest label time taken, unix seconds."""

    @property
    def labels(self) -> int:
        """Number of labels since those that the last run considered."""
        return self._labels

    @property
    def monitor(self) -> DriftMonitor | None:
        """The drift monitor; None unless a trigger needs it."""
        return self._monitor

    @property
    def wants_inputs(self) -> bool:
        """True if `take` uses inputs. Otherwise they need not be encoded."""
        return self._monitor is not None and self._monitor.wants_inputs

    @property
    def metrics(self) -> frozenset[str]:
        """Metrics whose losses `take` uses."""
        drift = {self._metric} if self._monitor is not None else set()
        return frozenset(drift | {window.metric for window in self._live})

    def remember(self, inputs: Inputs) -> None:
        """Add inputs that earlier runs have considered, oldest first, to the reference of the drift monitor."""
        if self._monitor is not None:
            self._monitor.remember(inputs)

    def take(
        self,
        losses: Losses | Mapping[str, Losses],
        inputs: Inputs | None,
        newest_label_time: float,
        *,
        oldest_label_time: float | None = None,
    ) -> None:
        """Add the next examples that no run has considered, in the order of their labels, to the facts.

        `losses`: losses of their served scores, shape [n], by metric (see `live_losses`).
        """
        named = {self._metric: losses} if isinstance(losses, np.ndarray) else losses
        count = max((len(one) for one in named.values()), default=0)
        if not count:
            return
        self._labels += count
        self.newest = max(self.newest, newest_label_time)
        if math.isinf(self._since):
            self._since = newest_label_time if oldest_label_time is None else oldest_label_time
        if self._monitor is not None and self._metric in named:
            self._monitor.update(named[self._metric], inputs)
        for window in self._live:
            if window.metric in named:
                window.take(named[window.metric])

    def see(
        self,
        kind: Kind,
        scores: Scores,
        targets: Targets,
        inputs: Callable[[], Inputs],
        newest_label_time: float,
        *,
        oldest_label_time: float | None = None,
    ) -> None:
        """Add the next examples by their served scores, shape [n, outputs], and targets, shape [n] or [n, labels].

        `inputs` is called only if inputs are used.
        """
        found = live_losses(kind, scores, targets, self.metrics)
        seen = inputs() if self.wants_inputs else None
        # Where no loss is watched labels are counted, by whatever they are given with.
        self.take(found or np.zeros(len(targets)), seen, newest_label_time, oldest_label_time=oldest_label_time)

    def scored(self, events: int) -> None:
        """Count scored events. Without this, labels count in their place."""
        self._events = (self._events or 0) + events

    def facts(self, now: float) -> Facts:
        """Facts at `now`, unix seconds on the plan's clock."""
        return Facts(
            now=now,
            since=self._since,
            labels=self._labels,
            created=self._created,
            drift=self._monitor.signals if self._monitor is not None else None,
            live=tuple(found for window in self._live if (found := window.figure()) is not None),
            run_s=self._run_s,
            events=self._events,
        )

    def run_started(self, facts: Facts) -> None:
        """Reset the facts, because a run was started on them."""
        self._labels, self._since = 0, facts.now
        self._events = None if self._events is None else 0
        if self._monitor is not None:
            self._monitor.considered()
        for window in self._live:
            window.clear()

    def run_ended(self, seconds: float) -> None:
        """Record the duration of a run, in seconds from its trigger to its end, whatever its result."""
        self._run_s = seconds

    def published(self, created: float, metrics: Mapping[str, float], examples: int = 0) -> None:
        """Record that a run's candidate became the champion.

        `metrics`: its mean losses at the gate (for accuracy: the error rate), over `examples`; 0: they are exact.
        """
        self._created = created
        for window in self._live:
            window.clear()
            window.reference, window.examples = metrics.get(window.metric), examples


def live_losses(
    kind: Kind, scores: Scores, targets: Targets, metrics: Iterable[str] = ()
) -> dict[str, NDArray[np.float64]]:
    """Losses of the examples, shape [n], by metric: of each one in `metrics` that fits the kind of task.

    `scores` [n, outputs] are as served; `targets` [n], or [n, labels].
    """
    fitting = [metric for metric in get_args(Metric) if (metric == "squared_error") == (kind is Kind.REGRESSION)]
    return {metric: losses(metric, kind, scores, targets) for metric in fitting if metric in metrics}


class _Window:
    """Losses of the newest `over` labels (0: of all) since `clear`."""

    def __init__(self, metric: str, over: int) -> None:
        self.metric, self.over = metric, over
        self.reference: float | None = None
        self.examples = 0
        self.clear()

    def clear(self) -> None:
        self._newest = np.empty(0)
        self._count, self._sum, self._square = 0, 0.0, 0.0

    def take(self, losses: Losses) -> None:
        if self.over:
            self._newest = np.concatenate((self._newest, losses))[-self.over :]
            return
        self._count += len(losses)
        self._sum += float(losses.sum())
        self._square += float((losses**2).sum())

    def figure(self) -> Live | None:
        if self.over:
            self._count = len(self._newest)
            self._sum, self._square = float(self._newest.sum()), float((self._newest**2).sum())
        if self._count < 2:
            return None
        mean = self._sum / self._count
        variance = max(self._square / self._count - mean**2, 0.0) * self._count / (self._count - 1)
        error = math.sqrt(variance / self._count)
        at_gate = math.sqrt(variance / self.examples) if self.examples else 0.0
        return Live(self.metric, self.over, self._count, mean, error, self.reference, at_gate)


def _windows(triggers: Sequence[Trigger]) -> list[_Window]:
    wanted = [(trigger.metric, trigger.over) for trigger in triggers if isinstance(trigger, Below)]
    wanted += [(trigger.metric, 0) for trigger in triggers if isinstance(trigger, Worthwhile)]
    return [_Window(*one) for one in dict.fromkeys(wanted)]
