"""Loss of each example by metric (pure)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.gate import Metric
from tailrace.declaration.task import Kind
from tailrace.inference.models.multilabel import unpacked

Scores: TypeAlias = NDArray[np.float32]
Targets: TypeAlias = NDArray[np.float32]

_SMALLEST = 1e-6  # the least probability that log-loss uses: one certain mistake must not decide alone


def losses(metric: Metric, kind: Kind, scores: Scores, targets: Targets) -> NDArray[np.float64]:
    """Loss of each example [n], lower is better; scores [n, outputs] as served, targets [n]. Of a multi-label one it is
    the mean of its labels' own."""
    given: NDArray[np.float64] = scores.astype(np.float64)
    truth: NDArray[np.float64] = targets.astype(np.float64)
    loss: NDArray[np.float64]
    if kind is Kind.REGRESSION:
        loss = (given[:, 0] - truth) ** 2
        return loss
    if kind is Kind.MULTILABEL:
        flags = unpacked(targets, scores.shape[1])
        each = losses(metric, Kind.BINARY, scores.reshape(-1, 1), flags.reshape(-1))
        loss = each.reshape(flags.shape).mean(axis=1)
        return loss
    if kind is Kind.BINARY:
        given = np.column_stack((1 - given[:, 0], given[:, 0]))
    index = truth.astype(np.int64)
    right = given[np.arange(len(index)), index]
    if metric == "accuracy":
        loss = (given.argmax(axis=1) != index).astype(np.float64)
    elif metric == "log_loss":
        loss = -np.log(np.maximum(right, _SMALLEST))
    else:  # brier: the sum over classes of (p - [class is right])^2
        loss = (given**2).sum(axis=1) - 2 * right + 1
    return loss
