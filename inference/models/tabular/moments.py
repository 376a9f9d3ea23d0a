"""Running moments of columns: they travel with a module's state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

HORIZON = 5_000.0  # rows over which running moments forget


class Found(NamedTuple):
    """Of columns: how many values there are, their mean and their variance, each [columns] float64."""

    seen: Tensor
    mean: Tensor
    variance: Tensor


class Moments(nn.Module):
    """Mean and variance of columns, over all rows at first and then with a horizon; NaN is left out."""

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        for name in ("count", "mean", "variance"):
            self.register_buffer(name, torch.zeros(columns, dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Rows [n, columns] more, on the CPU. Merging: Chan, Golub and LeVeque, "Updating formulae and a pairwise
        algorithm for computing sample variances", 1979. In NumPy: these arrays are tiny, and a call costs a third of
        torch's."""
        own_count, own_mean, own_variance = self.count.numpy(), self.mean.numpy(), self.variance.numpy()
        count, mean, variance = _moments(values.numpy())
        np.minimum(own_count + count, HORIZON, out=own_count)
        share = np.minimum(count / np.maximum(own_count, 1.0), 1.0)
        apart = mean - own_mean
        own_variance += share * ((1.0 - share) * apart * apart + variance - own_variance)
        own_mean += share * apart

    def set(self, found: Found, which: Tensor) -> None:
        """Forget the columns `which` and take what was found for them."""
        for own, new in zip((self.count, self.mean, self.variance), found, strict=True):
            own.copy_(torch.where(which, new, own))


def moments_of(values: Tensor) -> Found:
    """Of rows [n, columns], on their device; NaN is left out."""
    return Found(*(torch.from_numpy(found).to(values.device) for found in _moments(values.cpu().numpy())))


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """How many values there are in each column, their mean and their variance."""
    known = ~np.isnan(values)
    wide = np.where(known, values, 0.0).astype(np.float64, copy=False)
    count = known.sum(0, dtype=np.float64)
    some = np.maximum(count, 1.0)
    mean = wide.sum(0) / some
    apart = np.where(known, wide - mean, 0.0)
    return count, mean, (apart * apart).sum(0) / some


def varies(mean: Tensor, deviation: Tensor) -> Tensor:
    """Whether a deviation is more than the rounding of float32."""
    return (deviation > 1e-6 * mean.abs()) & (deviation > 1e-30)
