"""Loss of each example by metric (pure)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.gate import Metric
from tailrace.declaration.task import Kind
from tailrace.inference.models.targets import Targets as Targets

Scores: TypeAlias = NDArray[np.float32]
"""Scores of n examples, shape [n, outputs]: probabilities, or values for regression."""

_SMALLEST = 1e-6  # probability at which log-loss is clipped: one confident mistake must not dominate the mean


def losses(metric: Metric, kind: Kind, scores: Scores, targets: Targets) -> NDArray[np.float64]:
    """Compute the loss of each example, shape [n]; lower is better.

    `scores` [n, outputs] are as served; `targets` [n], or [n, labels] for a multi-label task, whose loss is the mean
    over its labels.
    """
    given: NDArray[np.float64] = scores.astype(np.float64)
    truth: NDArray[np.float64] = targets.astype(np.float64)
    loss: NDArray[np.float64]
    if kind is Kind.REGRESSION:
        loss = (given[:, 0] - truth) ** 2
        return loss
    if kind is Kind.MULTILABEL:
        each = losses(metric, Kind.BINARY, scores.reshape(-1, 1), targets.reshape(-1))
        loss = each.reshape(targets.shape).mean(axis=1)
        return loss
    if kind is Kind.BINARY:
        given = np.column_stack((1 - given[:, 0], given[:, 0]))
    index = truth.astype(np.int64)
    right = given[np.arange(len(index)), index]
    if metric == "accuracy":
        loss = (given.argmax(axis=1) != index).astype(np.float64)
    elif metric == "log_loss":
        loss = -np.log(np.maximum(right, _SMALLEST))
    else:  # Brier score: the sum over classes of (p - [class is right])^2
        loss = (given**2).sum(axis=1) - 2 * right + 1
    return loss
