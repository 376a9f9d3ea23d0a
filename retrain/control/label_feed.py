"""What new labels tell: to the watch that knows when a run is due, to the figures of quality, and to whoever looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tailrace.declaration.facts import Facts
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.triggers import next_time
from tailrace.inference.models.encoding import Inputs
from tailrace.retrain.control.observer import Observer
from tailrace.retrain.control.quality import Quality
from tailrace.retrain.control.trigger_state import Watch
from tailrace.retrain.selection.buffer import Row


class Sight:
    """Looks at examples as they come; `clock` gives unix seconds."""

    def __init__(self, declared: Pipeline, watch: Watch, observer: Observer, clock: Callable[[], float]) -> None:
        self._declared, self.watch, self._observer, self._clock = declared, watch, observer, clock
        self._quality = Quality(declared.task.kind)

    def see(self, rows: Sequence[Row], inputs: Inputs, considered: Mapping[int, int]) -> None:
        """`considered`: partition -> offset below which a run has considered them; they are no news."""
        if not rows:
            return
        task, watch = self._declared.task, self.watch
        new = np.array([row.offset >= considered[row.partition] for row in rows])
        if not new.all():
            watch.remember(inputs.take(np.flatnonzero(~new)))
        # What another declaration served, of other classes, says nothing of today's champion.
        told = [n for n in np.flatnonzero(new).tolist() if len(rows[n].scores) == task.outputs]
        if not told:
            return
        scores = np.array([rows[n].scores for n in told], np.float32)
        targets = np.array([rows[n].target for n in told], np.float32)
        times = [rows[n].label_time for n in told]
        watch.see(task.kind, scores, targets, lambda: inputs.take(told), max(times), oldest_label_time=min(times))
        self._quality.take(scores, targets)
        self._observer.measured(self._quality.figures())
        if (monitor := watch.monitor) is not None:
            self._observer.drifted(monitor.levels, monitor.loss_level, monitor.detections)
        self.tell_waiting()

    def facts(self) -> Facts:
        """What triggers may know now, on the plan's clock."""
        return self.watch.facts(self.now())

    def now(self) -> float:
        """Unix seconds on the plan's clock."""
        return self._clock() if self._declared.training.clock == "wall" else self.watch.newest

    def tell_waiting(self) -> None:
        """Say how many labels wait, and when time makes a run due: on the wall, by what is left on the plan's clock."""
        facts = self.facts()
        due = next_time(self._declared.retrain, facts) if math.isfinite(facts.now) else None
        self._observer.watched(self.watch.labels, None if due is None else self._clock() + due - facts.now)
