"""Feed labelled examples to the trigger state, the quality figures and the observer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.triggers import next_time
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.targets import target_array
from tailrace.retrain.control.observer import RetrainerObserver
from tailrace.retrain.control.quality import ServedQuality
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.selection.buffer import Row


class LabelFeed:
    """Passes newly read examples to the trigger state, the quality figures and the observer. `clock`: unix seconds."""

    def __init__(
        self, declared: Pipeline, triggers: TriggerState, observer: RetrainerObserver, clock: Callable[[], float]
    ) -> None:
        self._declared, self._triggers, self._observer, self._clock = declared, triggers, observer, clock
        self._quality = ServedQuality(declared.task.kind)

    def see(self, rows: Sequence[Row], inputs: Inputs, considered: Mapping[int, int]) -> None:
        """Pass on examples and their inputs, in the order in which they were read.

        `considered`: partition -> offset below which a run has considered the examples; their inputs serve as the
        reference for drift, and their labels do not count again.
        """
        if not rows:
            return
        task, triggers = self._declared.task, self._triggers
        new = np.array([row.offset >= considered[row.partition] for row in rows])
        if not new.all():
            triggers.remember(inputs.take(np.flatnonzero(~new)))
        # Scores of another width were served under another declaration: they say nothing about today's champion.
        comparable = [n for n in np.flatnonzero(new).tolist() if len(rows[n].scores) == task.outputs]
        if not comparable:
            return
        scores = np.array([rows[n].scores for n in comparable], np.float32)
        targets = target_array([rows[n].target for n in comparable], task)
        times = [rows[n].label_time for n in comparable]
        triggers.see(
            task.kind, scores, targets, lambda: inputs.take(comparable), max(times), oldest_label_time=min(times)
        )
        self._quality.take(scores, targets)
        self._observer.measured(self._quality.figures())
        if (monitor := triggers.monitor) is not None:
            self._observer.drifted(monitor.levels, monitor.loss_level, monitor.detections)
        self.report_waiting()

    def now(self) -> float:
        """Unix seconds on the plan's clock: the wall clock, or the time of the newest label."""
        return self._clock() if self._declared.training.clock == "wall" else self._triggers.newest

    def report_waiting(self) -> None:
        """Report how many labels wait, and the time on the wall clock at which time alone makes a run due."""
        now = self.now()
        next_run = next_time(self._declared.retrain, self._triggers.facts(now)) if math.isfinite(now) else None
        self._observer.watched(self._triggers.labels, None if next_run is None else self._clock() + next_run - now)
