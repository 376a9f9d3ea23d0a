"""Running moments of columns: they travel with a module's state."""

from __future__ import annotations

from typing import NamedTuple

import torch
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
        """Rows [n, columns] more. Merging: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
        computing sample variances", 1979."""
        count, mean, variance = moments_of(values)
        self.count.add_(count).clamp_(max=HORIZON)
        share = torch.where(count > 0, count / self.count.clamp(min=1.0), 0.0).clamp(max=1.0)
        apart = mean - self.mean
        self.variance.copy_((1 - share) * (self.variance + share * apart.square()) + share * variance)
        self.mean.add_(share * apart)

    def set(self, found: Found, which: Tensor) -> None:
        """Forget the columns `which` and take what was found for them."""
        for own, new in zip((self.count, self.mean, self.variance), found, strict=True):
            own.copy_(torch.where(which, new, own))


def moments_of(values: Tensor) -> Found:
    """Of rows [n, columns]; NaN is left out."""
    wide = values.double()
    count = (~wide.isnan()).sum(0).double()
    some = count.clamp(min=1.0)
    mean = wide.nansum(0) / some
    return Found(count, mean, (wide - mean).square().nansum(0) / some)


def varies(mean: Tensor, deviation: Tensor) -> Tensor:
    """Whether a deviation is more than the rounding of float32."""
    return (deviation > 1e-6 * mean.abs()) & (deviation > 1e-30)
