"""Running moments of columns, kept in a module's state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

HORIZON = 5_000.0  # rows: the largest weight that the past has in running moments


class ColumnMoments(NamedTuple):
    """Number of values, mean and variance of columns, each of shape [columns], float64."""

    counts: Tensor
    mean: Tensor
    variance: Tensor


class Moments(nn.Module):
    """Running mean and variance of columns: exact at first, exponentially forgetting once HORIZON rows are in.

    NaN values are left out.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        for name in ("count", "mean", "variance"):
            self.register_buffer(name, torch.zeros(columns, dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Add rows [n, columns], on the CPU.

        Merging of moments: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", 1979. In NumPy, because these arrays are tiny and a NumPy call costs a third of a torch call.
        """
        own_count, own_mean, own_variance = self.count.numpy(), self.mean.numpy(), self.variance.numpy()
        count, mean, variance = _moments(values.numpy())
        np.minimum(own_count + count, HORIZON, out=own_count)
        share = np.minimum(count / np.maximum(own_count, 1.0), 1.0)
        difference = mean - own_mean
        own_variance += share * ((1.0 - share) * difference * difference + variance - own_variance)
        own_mean += share * difference

    def set(self, moments: ColumnMoments, columns: Tensor) -> None:
        """Replace the moments of the columns selected by the mask `columns` [columns]."""
        for own, new in zip((self.count, self.mean, self.variance), moments, strict=True):
            own.copy_(torch.where(columns, new, own))


def moments_of(values: Tensor) -> ColumnMoments:
    """Compute the moments of rows [n, columns], on their device; NaN values are left out."""
    return ColumnMoments(*(torch.from_numpy(each).to(values.device) for each in _moments(values.cpu().numpy())))


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """Number of values in each column, their mean and their variance."""
    known = ~np.isnan(values)
    wide = np.where(known, values, 0.0).astype(np.float64, copy=False)
    count = known.sum(0, dtype=np.float64)
    divisor = np.maximum(count, 1.0)
    mean = wide.sum(0) / divisor
    difference = np.where(known, wide - mean, 0.0)
    return count, mean, (difference * difference).sum(0) / divisor


def varies(mean: Tensor, deviation: Tensor) -> Tensor:
    """Mask of the columns whose standard deviation is larger than the rounding of float32 explains."""
    return (deviation > 1e-6 * mean.abs()) & (deviation > 1e-30)
