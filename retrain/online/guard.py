"""Quick check of online updates (pure): an update must not make the rows worse that it has just learned from.

The promotion gate of runs needs labels from which neither side has learned, and an update cannot wait for them. Two
things can be required at once: finite scores, and on its own labels a loss that is not higher, beyond noise, than the
champion's was before it learned them. A step that makes even those rows worse has gone wrong.
"""

from __future__ import annotations

import math

import numpy as np

from tailrace.declaration.gate import Gate
from tailrace.declaration.task import Task
from tailrace.inference.models.losses import Scores, Targets, losses

_DEVIATIONS = 4.0  # of the mean paired difference: one sound update in 30,000 is refused
_FEWEST = 10  # labels, below which the spread is not estimated


def harm(task: Task, before: Scores, after: Scores, targets: Targets) -> str | None:
    """Reason why an update must not be released; None if it may be.

    Scores [n, outputs] of the update's rows before and after they were learned; targets [n], or [n, labels].
    """
    if not np.isfinite(after).all():
        return "its scores are not finite"
    metric = Gate().metric_for(task.kind)
    change = losses(metric, task.kind, after, targets) - losses(metric, task.kind, before, targets)
    if len(change) < _FEWEST or not np.isfinite(before).all():
        return None
    mean, spread = float(change.mean()), float(change.std(ddof=1)) / math.sqrt(len(change))
    if mean > _DEVIATIONS * spread and mean > 0:
        return f"{metric} on its own {len(change):,} labels rose by {mean:.4f} (spread {spread:.4f})"
    return None
