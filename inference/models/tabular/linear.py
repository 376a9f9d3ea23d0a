"""The linear part of the default committee: logistic or linear regression that follows the newest labels, a few rows
at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.columns import Floats, Indices
from tailrace.inference.models.multilabel import unpacked_tensor
from tailrace.inference.models.tabular.target_encoding import Recent

BLOCK = 64  # rows whose products with one another are taken at once
TOGETHER = 4  # rows at most that take their steps from the same weights
STEP = 0.005  # of SGD at least
PACE, OFFSET = 8.0, 50.0  # a step is PACE / (OFFSET + rows learned) while that is longer: the first labels say the most
# How far a logit or value moves by an error at most, so that many or extreme columns are safe: what is predicted moves
# by at most 1, 1/4 and 1/2 of that (the curvature of the square, of the logistic and of the softmax loss).
REACH = {Kind.REGRESSION: 1.0, Kind.BINARY: 4.0, Kind.MULTILABEL: 4.0, Kind.MULTICLASS: 2.0}


class Linear(nn.Module):
    """Logits of standardised columns, one weight for each category value, and what labels of late say; learns a few
    rows at a time. `sizes`: places of each column of values in one table; the first `categories` are of categories.

    Steps get shorter with the rows learned, down to where the newest still count: Robbins and Monro, "A stochastic
    approximation method", 1951. `learned` counts them, those that the weights were trained on in a run too.
    """

    learned: Tensor

    def __init__(self, dense: int, categories: int, sizes: Sequence[int], task: Task) -> None:
        super().__init__()
        self._kind, self._categories = task.kind, categories
        self.weight = nn.Parameter(torch.zeros(dense, task.outputs))
        self.bias = nn.Parameter(torch.zeros(task.outputs))
        values = sum(sizes[:categories])
        self.values = nn.Parameter(torch.zeros(values, task.outputs)) if values else None
        self.register_buffer("learned", torch.zeros(()))
        self.recent = Recent(sizes, task)

    def forward(self, dense: Tensor, places: Tensor) -> Tensor:
        """Dense [n, dense] and places [n, columns] -> [n, outputs]."""
        logits: Tensor = torch.addmm(self.bias, dense, self.weight) + self.recent(places)
        if self.values is None:
            return logits
        return logits + functional.embedding(places[:, : self._categories], self.values).sum(1)

    def absorb(self, dense: Tensor, places: Tensor, targets: Tensor, shift: Tensor) -> None:
        """A step of SGD for each row, in order. `shift`: what is added to the logits of a class."""
        due = wanted(self._kind, targets, len(self.bias)).float().numpy()
        moved = shift.numpy() * (self._kind is not Kind.REGRESSION)
        for start in range(0, len(dense), BLOCK):
            block = slice(start, start + BLOCK)
            self._absorb(dense[block].numpy(), places[block].numpy(), due[block], moved)
        self.recent.tell()

    def _absorb(self, dense: Floats, places: Indices, due: Floats, shift: Floats) -> None:
        """What a row's step changes in the logits of later rows is its error times the product of the two rows, so the
        steps of a block need its products alone, and the weights are touched once. In NumPy: these arrays are tiny, and
        a call costs a third of torch's."""
        weight, bias = self.weight.detach().numpy(), self.bias.detach().numpy()
        values, rows = None if self.values is None else self.values.detach().numpy(), places[:, : self._categories]
        weights, rates = self.recent.weights.numpy(), self.recent.rates(places).transpose(2, 0, 1)
        # Whatever has an output comes with that first: [outputs, n, ...].
        product, said = dense @ dense.T + 1.0, (dense @ weight + (bias + shift)).T
        if values is not None:
            columns = np.ascontiguousarray(rows.T)
            product += (columns[:, :, None] == columns[:, None]).sum(0)
            said += values[rows].sum(1).T
        products = product + rates @ rates.transpose(0, 2, 1)
        said += (rates @ weights.T[:, :, None])[..., 0]
        self.learned += len(dense)
        step = max(STEP, PACE / (OFFSET + float(self.learned)))
        errors = _errors(self._kind, step, products.astype(np.float64), said.astype(np.float64), due.T)
        moves = errors.astype(np.float32)
        weight += dense.T @ moves.T
        bias += moves.sum(1)
        weights += (moves[:, None] @ rates)[:, 0].T
        if values is not None:
            np.add.at(values, rows.ravel(), moves.T.repeat(rows.shape[1], 0))
        self.recent.add(places, due)


def _errors(
    kind: Kind, step: float, products: NDArray[np.float64], said: NDArray[np.float64], due: Floats
) -> NDArray[np.float64]:
    """The steps of rows, each the row's error times at most `step`: products [outputs, n, n], the rest [outputs, n].
    Where equal rows that go together would have to share what is the least step otherwise, fewer do; but not for
    errors without bounds: as long a step as squares allow takes in all of a row's noise."""
    reach = REACH[kind] / products.diagonal(axis1=1, axis2=2)
    together = int(min(max(reach.min() / STEP, 1), TOGETHER)) if kind is not Kind.REGRESSION else TOGETHER
    steps = np.minimum(reach / together, step)
    errors = np.empty_like(said)
    for start in range(0, errors.shape[1], together):
        part = slice(start, start + together)
        now = said[:, part] + (products[:, part, :start] @ errors[:, :start, None])[..., 0]
        errors[:, part] = steps[:, part] * (due[:, part] - _activated(kind, now))
    return errors


def wanted(kind: Kind, targets: Tensor, outputs: int) -> Tensor:
    """What each output should have predicted of rows with these targets [...]: [..., outputs]."""
    if kind is Kind.MULTICLASS:
        return functional.one_hot(targets.long(), outputs)
    return unpacked_tensor(targets, outputs) if kind is Kind.MULTILABEL else targets[..., None]


def _activated(kind: Kind, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """What logits [outputs, n] predict."""
    if kind is Kind.REGRESSION:
        return logits
    if kind in (Kind.BINARY, Kind.MULTILABEL):
        return np.tanh(0.5 * logits) * 0.5 + 0.5  # the sigmoid, without overflow
    exponents: NDArray[np.float64] = np.exp(logits - logits.max(0, keepdims=True))
    odds: NDArray[np.float64] = exponents / exponents.sum(0, keepdims=True)
    return odds
