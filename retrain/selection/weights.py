"""Example weights of a run (pure): deliberate imbalance without bias.

**Balance.** With weights w against class frequency, a model would predict w_c p_c / sum, which is over-confident for
rare classes. So the training loss is computed on the logits plus log w (`WeightedSelection.prior`): the weighted loss
is smallest where that sum is log(w p), that is where the logits alone are log p. The released model is calibrated and
needs no correction when it serves. (A prior correction: King and Zeng, "Logistic regression in rare events data", 2001;
Menon et al., "Long-tail learning via logit adjustment", 2021.)

**Hard examples.** Examples are drawn in proportion to their served loss, within bounds, and each is weighted by one
over its probability (Horvitz and Thompson, 1952), so that the expected sum of losses is that over all examples. On the
gain: Katharopoulos and Fleuret, "Not all samples are created equal", 2018.
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
from tailrace.inference.models.targets import target_array
from tailrace.retrain.selection.buffer import Row, Selection
from tailrace.retrain.selection.delayed_feedback import late_positive_weights, late_share
from tailrace.retrain.selection.sampling import draws

BOUNDS = 0.2, 5.0  # of a loss in units of the mean loss, where it decides the probability of an example
MOST = 100.0  # bound of a weight in units of the mean weight

Floats = NDArray[np.float64]


class WeightedSelection(NamedTuple):
    """Rows of a run with their weights.

    `selection`: the rows that are left. `weights` [train]: weight of each row, 1 on average; None: all are 1. `prior`
    [outputs]: added to the logits in training; None: nothing.
    """

    selection: Selection
    weights: NDArray[np.float32] | None = None
    prior: tuple[float, ...] | None = None


def weigh(
    selection: Selection, task: Task, plan: Training, *, warm: bool, wait: float | None = None
) -> WeightedSelection:
    """Choose and weight the rows of a run, as `plan.data` declares.

    `warm`: a warm run draws old rows for replay by their age, so that age needs no weight. `wait`: seconds after which
    a missing label counts as the declared one; None if it never does.
    """
    data = plan.data
    parts: list[Floats] = []
    if data.hard < 1:
        selection, weights = _thinned(selection, task, data.hard, plan.seed)
        parts.append(weights)
    rows = selection.train
    if not rows:
        return WeightedSelection(selection)
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
        return WeightedSelection(selection)
    return WeightedSelection(selection, _normal(np.prod(parts, axis=0)), prior)


def class_weights(rows: Sequence[Row], task: Task, most: float) -> Floats:
    """Weight of each class: 1 for the most frequent, inverse to frequency for the others, at most `most`."""
    counts = np.bincount(_classes(rows), minlength=max(task.outputs, 2)).astype(np.float64)
    weights: Floats = np.minimum(counts.max() / np.maximum(counts, 1.0), most)
    return weights


def chances(difficulty: Floats, share: float) -> Floats:
    """Probabilities [n] proportional to `difficulty` [n] (above 0), at most 1, whose sum is `share` times n."""
    n, wanted = len(difficulty), share * len(difficulty)
    falling = np.sort(difficulty)[::-1]
    rest = np.cumsum(falling[::-1])[::-1]  # sum from here on
    certain = np.arange(n)  # number of rows with probability 1
    scale = (wanted - certain) / rest
    fits = np.flatnonzero((scale * falling <= 1) & (certain <= wanted))
    return np.minimum(1.0, difficulty * scale[fits[0]]) if len(fits) else np.ones(n)


def _thinned(selection: Selection, task: Task, share: float, seed: int) -> tuple[Selection, Floats]:
    """Keep a `share` of the rows that were learned before; returns the selection and the weight of each row."""
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
    """Served loss of each row; the mean loss for rows whose scores have another width than the task."""
    fits = np.array([len(row.scores) == task.outputs for row in rows])
    comparable = [row for row in rows if len(row.scores) == task.outputs]
    loss = np.ones(len(rows))
    if comparable:
        scores = np.array([row.scores for row in comparable], np.float32)
        targets = target_array([row.target for row in comparable], task)
        loss[fits] = losses(Gate().metric_for(task.kind), task.kind, scores, targets)
        loss[~fits] = loss[fits].mean()
    return loss


def _late(rows: Sequence[Row], wait: float) -> Floats:
    positive = np.array([row.target == 1.0 and not row.implicit for row in rows])
    implicit = np.array([row.implicit and row.target == 0.0 for row in rows])
    chance = np.array([row.scores[0] if len(row.scores) == 1 else 0.5 for row in rows])
    delays = np.array([row.label_time - row.time for row in rows])[positive]
    return late_positive_weights(positive, implicit, np.clip(chance, 0.0, 1 - 1e-6), late_share(delays, wait))


def _classes(rows: Sequence[Row]) -> NDArray[np.int64]:
    return np.array([row.target for row in rows]).astype(np.int64)


def _normal(weights: Floats) -> NDArray[np.float32]:
    mean = float(weights.mean())
    if not (mean > 0 and math.isfinite(mean)):
        return np.ones(len(weights), np.float32)
    bounded: NDArray[np.float32] = np.minimum(weights / mean, MOST).astype(np.float32)
    return bounded
