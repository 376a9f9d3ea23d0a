"""Online linear model of the default ensemble: logistic, softmax or linear regression by SGD on the newest labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.columns import Floats, Indices
from tailrace.inference.models.tabular.target_encoding import TargetEncoding

BLOCK = 64  # rows whose pairwise products are computed at once
TOGETHER = 4  # rows at most that take their steps from the same weights
STEP = 0.005  # smallest SGD step
PACE, OFFSET = 8.0, 50.0  # a step is PACE / (OFFSET + rows learned) while that is above STEP: first labels teach most
# Largest change of a logit or value per unit of error, so that many or extreme columns stay stable. The prediction then
# changes by at most 1, 1/4 and 1/2 of that (the curvature of the squared, the logistic and the softmax loss).
REACH = {Kind.REGRESSION: 1.0, Kind.BINARY: 4.0, Kind.MULTILABEL: 4.0, Kind.MULTICLASS: 2.0}


class Linear(nn.Module):
    """Linear model of standardised numbers, category values and target encodings, learned by SGD row by row.

    The step size decreases with the number of rows learned, down to STEP, where the model keeps following the newest
    rows: Robbins and Monro, "A stochastic approximation method", 1951. `learned` counts rows, including those of a run.

    The names of parameters, buffers and submodules are keys of published weights.
    """

    learned: Tensor

    def __init__(self, dense: int, categories: int, sizes: Sequence[int], task: Task) -> None:
        """`dense`: number of dense columns. `sizes`: number of values of each column in the table of values, of which
        the first `categories` columns are categories and the others binned numbers."""
        super().__init__()
        self._kind, self._categories = task.kind, categories
        self.weight = nn.Parameter(torch.zeros(dense, task.outputs))
        self.bias = nn.Parameter(torch.zeros(task.outputs))
        values = sum(sizes[:categories])
        self.values = nn.Parameter(torch.zeros(values, task.outputs)) if values else None
        self.register_buffer("learned", torch.zeros(()))
        self.recent = TargetEncoding(sizes, task)

    def forward(self, dense: Tensor, places: Tensor) -> Tensor:
        """Dense columns [n, dense] and table rows [n, columns] -> logits or values [n, outputs]."""
        logits: Tensor = torch.addmm(self.bias, dense, self.weight) + self.recent(places)
        if self.values is None:
            return logits
        return logits + functional.embedding(places[:, : self._categories], self.values).sum(1)

    def absorb(self, dense: Tensor, places: Tensor, targets: Tensor, shift: Tensor) -> None:
        """Take one SGD step per row, in order.

        `shift` [outputs]: what the ensemble adds to the logits of a classification task.
        """
        expected = output_targets(self._kind, targets, len(self.bias)).float().numpy()
        added = shift.numpy() * (self._kind is not Kind.REGRESSION)
        for start in range(0, len(dense), BLOCK):
            block = slice(start, start + BLOCK)
            self._absorb(dense[block].numpy(), places[block].numpy(), expected[block], added)
        self.recent.refresh()

    def _absorb(self, dense: Floats, places: Indices, targets: Floats, shift: Floats) -> None:
        """Take the SGD steps of one block of rows at once.

        A row's step changes the logits of a later row by its error times the product of the two rows. So the steps of a
        block need only the pairwise products, and the weights are changed once. In NumPy, because these arrays are tiny
        and a NumPy call costs a third of a torch call.
        """
        weight, bias = self.weight.detach().numpy(), self.bias.detach().numpy()
        values, rows = None if self.values is None else self.values.detach().numpy(), places[:, : self._categories]
        weights, rates = self.recent.weights.numpy(), self.recent.rates(places).transpose(2, 0, 1)
        # Arrays with a dimension of outputs have it first: [outputs, n, ...].
        product, logits = dense @ dense.T + 1.0, (dense @ weight + (bias + shift)).T
        if values is not None:
            columns = np.ascontiguousarray(rows.T)
            product += (columns[:, :, None] == columns[:, None]).sum(0)
            logits += values[rows].sum(1).T
        products = product + rates @ rates.transpose(0, 2, 1)
        logits += (rates @ weights.T[:, :, None])[..., 0]
        self.learned += len(dense)
        step = max(STEP, PACE / (OFFSET + float(self.learned)))
        errors = _scaled_errors(self._kind, step, products.astype(np.float64), logits.astype(np.float64), targets.T)
        moves = errors.astype(np.float32)
        weight += dense.T @ moves.T
        bias += moves.sum(1)
        weights += (moves[:, None] @ rates)[:, 0].T
        if values is not None:
            np.add.at(values, rows.ravel(), moves.T.repeat(rows.shape[1], 0))
        self.recent.add(places, targets)


def _scaled_errors(
    kind: Kind, step: float, products: NDArray[np.float64], logits: NDArray[np.float64], targets: Floats
) -> NDArray[np.float64]:
    """Error of each row times its step size, which is at most `step`: shape [outputs, n].

    Pairwise products [outputs, n, n], logits and targets [outputs, n]. Up to TOGETHER rows take their steps from the
    same weights and share the largest allowed change. Fewer do where equal rows would have to take steps below STEP for
    that. In regression they always share it: errors are unbounded, and the largest step that the squared loss allows
    would follow all of a row's noise.
    """
    reach = REACH[kind] / products.diagonal(axis1=1, axis2=2)
    together = int(min(max(reach.min() / STEP, 1), TOGETHER)) if kind is not Kind.REGRESSION else TOGETHER
    steps = np.minimum(reach / together, step)
    errors = np.empty_like(logits)
    for start in range(0, errors.shape[1], together):
        part = slice(start, start + together)
        current = logits[:, part] + (products[:, part, :start] @ errors[:, :start, None])[..., 0]
        errors[:, part] = steps[:, part] * (targets[:, part] - _predicted(kind, current))
    return errors


def output_targets(kind: Kind, targets: Tensor, outputs: int) -> Tensor:
    """Convert targets [...], or [..., labels] of a multi-label task, into one per output: [..., outputs]."""
    if kind is Kind.MULTICLASS:
        return functional.one_hot(targets.long(), outputs)
    return targets if kind is Kind.MULTILABEL else targets[..., None]


def _predicted(kind: Kind, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities, or values, of logits [outputs, n]."""
    if kind is Kind.REGRESSION:
        return logits
    if kind in (Kind.BINARY, Kind.MULTILABEL):
        return np.tanh(0.5 * logits) * 0.5 + 0.5  # the sigmoid, without overflow
    exponents: NDArray[np.float64] = np.exp(logits - logits.max(0, keepdims=True))
    odds: NDArray[np.float64] = exponents / exponents.sum(0, keepdims=True)
    return odds
