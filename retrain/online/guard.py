"""The quick guard of online updates (pure): what an update may not do to the rows that it has just learned from.

The gate of runs needs labels that neither side has learned from; an update cannot wait for them. What it can be held to
at once: its scores are finite, and on its newest labels it is no worse than the champion was before it learned them,
beyond noise. A step that makes even those worse has gone wrong.
"""

from __future__ import annotations

import math

import numpy as np

from tailrace.declaration.gate import Gate
from tailrace.declaration.task import Task
from tailrace.inference.models.losses import Scores, Targets, losses

_DEVIATIONS = 4.0  # of the mean paired difference: one sound update in 30,000 is refused
_FEWEST = 10  # labels below which a spread says nothing


def harm(task: Task, before: Scores, after: Scores, targets: Targets) -> str | None:
    """Why an update must not be released; None: it may. Scores [n, outputs] of its rows before and after they were
    learned, targets [n]."""
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
