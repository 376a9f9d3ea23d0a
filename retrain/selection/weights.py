"""How much each example of a run counts (pure), so that what was made unequal on purpose stays unbiased.

**Balance.** Weights w against class frequency make a model that says w_c p_c / sum: over-confident in what is rare. So
the training loss is computed on the logits plus log w (`Weighed.prior`): the weighted loss is smallest where the sum is
log(w p), which is where the logits alone are log p. What is released is calibrated, and nothing has to be corrected
when it serves. (Of the family of prior corrections: King and Zeng, "Logistic regression in rare events data", 2001;
Menon et al., "Long-tail learning via logit adjustment", 2021.)

**Hard examples.** Drawn in proportion to their served loss, within bounds, each counts one over its chance (Horvitz and
Thompson, 1952), so that the sum of losses is what it would be over all. On the gain: Katharopoulos and Fleuret, "Not
all samples are created equal", 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.data import Recency
from tailrace.declaration.gate import Gate
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.losses import losses
from tailrace.retrain.selection.buffer import Row, Selection
from tailrace.retrain.selection.delayed_feedback import late_share, once_weights
from tailrace.retrain.selection.sampling import draws

BOUNDS = 0.2, 5.0  # of a loss, in means, where it decides how likely an example is drawn
MOST = 100.0  # of a weight, in means

Floats = NDArray[np.float64]


class Weighed(NamedTuple):
    """`selection`: what is left to learn from. `weights` [train]: how much each row counts, 1 on average; None: all the
    same. `prior`: what is added to the logits in training, one an output; None: nothing."""

    selection: Selection
    weights: NDArray[np.float32] | None = None
    prior: tuple[float, ...] | None = None


def weigh(selection: Selection, task: Task, plan: Training, *, warm: bool, wait: float | None = None) -> Weighed:
    """What a run learns from and how much each example counts, as `plan.data` says.

    `warm`: old rows are drawn for replay, by their age if so declared, and need no weight for it. `wait`: seconds after
    which a missing label was taken for one.
    """
    data = plan.data
    parts: list[Floats] = []
    if data.hard < 1:
        selection, weights = _thinned(selection, task, data.hard, plan.seed)
        parts.append(weights)
    rows = selection.train
    if not rows:
        return Weighed(selection)
    if isinstance(data, Recency) and not warm:
        parts.append(np.exp2(-np.arange(len(rows))[::-1] / data.half_life))
    if data.late and task.kind is Kind.BINARY and wait is not None:
        parts.append(_late(rows, wait))
    prior = None
    if data.balance > 1 and task.kind in (Kind.BINARY, Kind.MULTICLASS) and rows:
        each = class_weights(rows, task, data.balance)
        parts.append(each[_classes(rows)])
        logs = np.log(each)
        prior = tuple(logs.tolist()) if task.kind is Kind.MULTICLASS else (float(logs[1] - logs[0]),)
    if not parts:
        return Weighed(selection)
    return Weighed(selection, _normal(np.prod(parts, axis=0)), prior)


def class_weights(rows: Sequence[Row], task: Task, most: float) -> Floats:
    """The weight of each class: 1 for the commonest, for others against their frequency, at most `most`."""
    counts = np.bincount(_classes(rows), minlength=max(task.outputs, 2)).astype(np.float64)
    weights: Floats = np.minimum(counts.max() / np.maximum(counts, 1.0), most)
    return weights


def chances(difficulty: Floats, share: float) -> Floats:
    """How likely each is to be drawn: as `difficulty` [n] (above 0), at most 1, `share` of n in all."""
    n, wanted = len(difficulty), share * len(difficulty)
    falling = np.sort(difficulty)[::-1]
    rest = np.cumsum(falling[::-1])[::-1]  # of those from here on
    certain = np.arange(n)  # drawn for certain, when the others share what is left
    scale = (wanted - certain) / rest
    fits = np.flatnonzero((scale * falling <= 1) & (certain <= wanted))
    return np.minimum(1.0, difficulty * scale[fits[0]]) if len(fits) else np.ones(n)


def _thinned(selection: Selection, task: Task, share: float, seed: int) -> tuple[Selection, Floats]:
    """The selection with some of the rows that were learned before, and all weights."""
    train, fresh = selection.train, selection.fresh
    old, new = train[: len(train) - fresh], train[len(train) - fresh :]
    if not old:
        return selection, np.ones(len(train))
    loss = _served_losses(old, task)
    mean = float(loss.mean()) or 1.0
    chance = chances(np.clip(loss, BOUNDS[0] * mean, BOUNDS[1] * mean) if loss.any() else np.ones(len(old)), share)
    kept = np.flatnonzero(draws(old, seed) < chance)
    rows = [old[n] for n in kept]
    return selection._replace(train=rows + new), np.concatenate((1 / chance[kept], np.ones(fresh)))


def _served_losses(rows: Sequence[Row], task: Task) -> Floats:
    """Of each row; the mean where what was served has another width than today's."""
    fits = np.array([len(row.scores) == task.outputs for row in rows])
    alike = [row for row in rows if len(row.scores) == task.outputs]
    found = np.ones(len(rows))
    if alike:
        scores = np.array([row.scores for row in alike], np.float32)
        targets = np.array([row.target for row in alike], np.float32)
        found[fits] = losses(Gate().metric_for(task.kind), task.kind, scores, targets)
        found[~fits] = found[fits].mean()
    return found


def _late(rows: Sequence[Row], wait: float) -> Floats:
    positive = np.array([row.target == 1.0 and not row.implicit for row in rows])
    implicit = np.array([row.implicit and row.target == 0.0 for row in rows])
    chance = np.array([row.scores[0] if len(row.scores) == 1 else 0.5 for row in rows])
    delays = np.array([row.label_time - row.time for row in rows])[positive]
    return once_weights(positive, implicit, np.clip(chance, 0.0, 1 - 1e-6), late_share(delays, wait))


def _classes(rows: Sequence[Row]) -> NDArray[np.int64]:
    return np.array([row.target for row in rows]).astype(np.int64)


def _normal(weights: Floats) -> NDArray[np.float32]:
    mean = float(weights.mean())
    if not (mean > 0 and math.isfinite(mean)):
        return np.ones(len(weights), np.float32)
    bounded: NDArray[np.float32] = np.minimum(weights / mean, MOST).astype(np.float32)
    return bounded
