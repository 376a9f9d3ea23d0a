"""The linear part of the default committee: logistic or linear regression that follows the newest labels, a few rows
at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inference.multilabel import unpacked_tensor
from inference.task import Kind, Task

BLOCK = 64  # rows whose products with one another are taken at once
TOGETHER = 4  # rows that take their steps from the same weights
STEP = 0.005  # of SGD
# How far a logit or value moves by a row's error at most, so that many or extreme columns are safe: what is predicted
# moves by at most 1, 1/4 and 1/2 of that (the curvature of the square, of the logistic and of the softmax loss).
REACH = {
    Kind.REGRESSION: 1 / TOGETHER,
    Kind.BINARY: 4 / TOGETHER,
    Kind.MULTILABEL: 4 / TOGETHER,
    Kind.MULTICLASS: 2 / TOGETHER,
}


class Linear(nn.Module):
    """Logits of standardised columns and one weight for each category value; learns a few rows at a time."""

    def __init__(self, dense: int, values: int, task: Task) -> None:
        super().__init__()
        self._kind = task.kind
        self.weight = nn.Parameter(torch.zeros(dense, task.outputs))
        self.bias = nn.Parameter(torch.zeros(task.outputs))
        self.values = nn.Parameter(torch.zeros(values, task.outputs)) if values else None

    def forward(self, dense: Tensor, rows: Tensor | None) -> Tensor:
        logits = torch.addmm(self.bias, dense, self.weight)
        return (
            logits if rows is None or self.values is None else logits + functional.embedding(rows, self.values).sum(1)
        )

    def absorb(self, dense: Tensor, rows: Tensor | None, targets: Tensor, shift: Tensor) -> None:
        """A step of SGD for each row, in order. `shift`: what is added to the logits of a class."""
        for start in range(0, len(dense), BLOCK):
            block = slice(start, start + BLOCK)
            self._absorb(dense[block], None if rows is None else rows[block], targets[block], shift)

    def _absorb(self, dense: Tensor, rows: Tensor | None, targets: Tensor, shift: Tensor) -> None:
        """What a row's step changes in the logits of later rows is its error times the product of the two rows, so the
        steps of a block need its products alone, and the weights are touched once."""
        products = torch.addmm(torch.ones(()), dense, dense.T)
        if rows is not None:
            columns = rows.T
            products += (columns[:, :, None] == columns[:, None]).sum(0)
        logits = self(dense, rows)
        if self._kind is not Kind.REGRESSION:
            logits = logits + shift
        # In NumPy: these arrays are tiny, and a call costs a third of torch's.
        product, said = products.double().numpy(), logits.double().numpy()
        due = wanted(self._kind, targets, len(self.bias)).double().numpy()
        steps = np.minimum(REACH[self._kind] / product.diagonal(), STEP)[:, None]
        errors = np.empty_like(said)
        for start in range(0, len(errors), TOGETHER):
            part = slice(start, start + TOGETHER)
            now = said[part] + product[part, :start] @ errors[:start]
            errors[part] = steps[part] * (due[part] - _activated(self._kind, now))
        moves = torch.from_numpy(errors).float()
        self.weight.addmm_(dense.T, moves)
        self.bias.add_(moves.sum(0))
        if rows is not None and self.values is not None:
            self.values.index_add_(0, rows.flatten(), moves.repeat_interleave(rows.shape[1], 0))


def wanted(kind: Kind, targets: Tensor, outputs: int) -> Tensor:
    """What each output should have predicted of rows with these targets [...]: [..., outputs]."""
    if kind is Kind.MULTICLASS:
        return functional.one_hot(targets.long(), outputs)
    return unpacked_tensor(targets, outputs) if kind is Kind.MULTILABEL else targets[..., None]


def _activated(kind: Kind, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """What logits [n, outputs] predict."""
    if kind is Kind.REGRESSION:
        return logits
    if kind in (Kind.BINARY, Kind.MULTILABEL):
        return np.tanh(0.5 * logits) * 0.5 + 0.5  # the sigmoid, without overflow
    exponents: NDArray[np.float64] = np.exp(logits - logits.max(1, keepdims=True))
    odds: NDArray[np.float64] = exponents / exponents.sum(1, keepdims=True)
    return odds
