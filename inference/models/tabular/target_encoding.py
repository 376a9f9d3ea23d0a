"""What labels went with each value of a column of late: fading counts, which the linear part weighs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.columns import Floats, Indices

HALF_LIFE = 600.0  # rows of age after which a label counts half
DOUBT = 30.0  # rows of the overall rate that are added to those of each value


class Recent(nn.Module):
    """Columns of values, each with its *place* in one table; for each place how much more likely than overall a label
    of late was with it: the difference of log-odds, of a class that of log-probabilities, of a regression that of
    means. Smoothed towards 0, which it is for values not seen lately.

    Target encoding with fading counts: Micci-Barreca, "A preprocessing scheme for high-cardinality categorical
    attributes", 2001; Gama, Sebastiao and Rodrigues, "On evaluating stream learning algorithms", 2013.
    """

    seen: Tensor
    total: Tensor
    weights: Tensor
    said: Tensor

    def __init__(self, sizes: Sequence[int], task: Task) -> None:
        super().__init__()
        self._kind, self._sizes = task.kind, np.array(sizes, np.int64)
        places, outputs = sum(sizes), task.outputs
        self.register_buffer("seen", torch.zeros(places, 1 + outputs))  # rows, and what was due of them
        self.register_buffer("total", torch.zeros(1 + outputs))  # the same of all rows
        self.register_buffer("weights", torch.zeros(len(sizes), outputs))
        self.register_buffer("said", torch.zeros(places, outputs))  # what it is, times the column's weight

    def forward(self, places: Tensor) -> Tensor:
        """Places [n, columns] -> what they add to logits or values [n, outputs]."""
        said: Tensor = functional.embedding(places, self.said).sum(1)
        return said

    def rates(self, places: Indices | slice) -> Floats:
        """What the rows of late say of places [...]: [..., outputs]."""
        seen, (known, *_), due = self.seen.numpy()[places], self.total.numpy(), self.total.numpy()[1:]
        counts, sums = seen[..., :1], seen[..., 1:]
        rates: Floats
        if self._kind is Kind.REGRESSION:
            mean = due / (known + 1.0)
            rates = (sums + DOUBT * mean) / (counts + DOUBT) - mean
        elif self._kind is Kind.MULTICLASS:
            share = (due + 1.0) / (known + len(due))
            rates = np.log((sums / share + DOUBT) / (counts + DOUBT))
        else:
            share = (due + 1.0) / (known + 2.0)
            rates = np.log((sums / share + DOUBT) / ((counts - sums) / (1.0 - share) + DOUBT))
        return rates

    def add(self, places: Indices, due: Floats) -> None:
        """Rows more: their places [n, columns], and what they should have been predicted as [n, outputs]."""
        left = 0.5 ** (len(due) / HALF_LIFE)
        rows = torch.from_numpy(np.concatenate((np.ones((len(due), 1), np.float32), due), 1))
        flat = torch.from_numpy(places.ravel())
        self.seen.mul_(left).index_add_(0, flat, rows.repeat_interleave(places.shape[1], 0))
        self.total.mul_(left).add_(rows.sum(0))

    def tell(self) -> None:
        """Say from now on what was added, with the weights that the columns have come to."""
        self.said.copy_(torch.from_numpy(self.rates(slice(None)) * self.weights.numpy().repeat(self._sizes, 0)))
