"""Online target encoding: exponentially decayed label rates per feature value, with one learned weight per column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.columns import Floats, Indices

HALF_LIFE = 600.0  # rows of age after which a label counts half
SMOOTHING = 30.0  # rows of the overall rate that are added to those of each value


class TargetEncoding(nn.Module):
    """Decayed label rates for the values of several columns, kept in one table.

    Each value of each column has a row of the table. Its encoding compares the labels seen with this value with those
    of all rows: a difference of log-odds (binary, multi-label), of log-probabilities (multi-class) or of means
    (regression). It is smoothed towards 0, which is also the encoding of a value without recent labels.

    Target encoding: Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes", 2001. Decayed
    counts: Gama, Sebastiao and Rodrigues, "On evaluating stream learning algorithms", 2013.

    The names of the buffers are keys of published weights.
    """

    seen: Tensor
    total: Tensor
    weights: Tensor
    said: Tensor

    def __init__(self, sizes: Sequence[int], task: Task) -> None:
        """`sizes`: number of values of each column."""
        super().__init__()
        self._kind, self._sizes = task.kind, np.array(sizes, np.int64)
        values, outputs = sum(sizes), task.outputs
        self.register_buffer("seen", torch.zeros(values, 1 + outputs))  # decayed row count and sums of targets
        self.register_buffer("total", torch.zeros(1 + outputs))  # the corresponding numbers over all rows
        self.register_buffer("weights", torch.zeros(len(sizes), outputs))
        self.register_buffer("said", torch.zeros(values, outputs))  # encoding times the weight of its column

    def forward(self, places: Tensor) -> Tensor:
        """Table rows [n, columns] -> what they add to the logits or values, shape [n, outputs]."""
        added: Tensor = functional.embedding(places, self.said).sum(1)
        return added

    def rates(self, places: Indices | slice) -> Floats:
        """Compute the encodings of table rows [...], shape [..., outputs], from the counts as they are now."""
        seen, total = self.seen.numpy()[places], self.total.numpy()
        all_count, all_sums = total[0], total[1:]
        counts, sums = seen[..., :1], seen[..., 1:]
        rates: Floats
        if self._kind is Kind.REGRESSION:
            mean = all_sums / (all_count + 1.0)
            rates = (sums + SMOOTHING * mean) / (counts + SMOOTHING) - mean
        elif self._kind is Kind.MULTICLASS:
            share = (all_sums + 1.0) / (all_count + len(all_sums))
            rates = np.log((sums / share + SMOOTHING) / (counts + SMOOTHING))
        else:
            share = (all_sums + 1.0) / (all_count + 2.0)
            rates = np.log((sums / share + SMOOTHING) / ((counts - sums) / (1.0 - share) + SMOOTHING))
        return rates

    def add(self, places: Indices, targets: Floats) -> None:
        """Decay the counts and add n examples: their rows of the table [n, columns] and their targets [n, outputs]."""
        decay = 0.5 ** (len(targets) / HALF_LIFE)
        rows = torch.from_numpy(np.concatenate((np.ones((len(targets), 1), np.float32), targets), 1))
        flat = torch.from_numpy(places.ravel())
        self.seen.mul_(decay).index_add_(0, flat, rows.repeat_interleave(places.shape[1], 0))
        self.total.mul_(decay).add_(rows.sum(0))

    def refresh(self) -> None:
        """Make `forward` use the counts and weights as they are now."""
        self.said.copy_(torch.from_numpy(self.rates(slice(None)) * self.weights.numpy().repeat(self._sizes, 0)))
