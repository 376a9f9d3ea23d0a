"""The layers of the default network: those of several networks in one product. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDED = 8  # numbers that a category value is described by


def dropout(values: Tensor, dropped: float) -> Tensor:
    """Dropout by a random byte for each value: a number for each, as torch draws them, takes longer than the layer."""
    if not dropped:
        return values
    count, least = values.numel(), round(256 * dropped)
    eights = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-count // 8),), device=values.device)
    kept = eights.view(torch.uint8)[:count].view_as(values) >= least
    return values * (kept * (256 / (256 - least)))


class Layers(nn.Module):
    """One linear layer of each of `many` networks: [many, b, inputs] -> [many, b, outputs]. `others`: how many inputs
    come to the same outputs from elsewhere."""

    def __init__(self, many: int, inputs: int, outputs: int, others: int = 0) -> None:
        super().__init__()
        self.weight = _uniform(many, inputs, outputs, inputs + others)
        self.bias = _uniform(many, 1, outputs, inputs + others)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)


class Categories(nn.Module):
    """All category columns in one table of embeddings, and their part of the first layer: apart from that of the
    numbers, which needs no gradient of its inputs."""

    starts: Tensor

    def __init__(self, many: int, buckets: Sequence[int], others: int, outputs: int) -> None:
        super().__init__()
        starts = [0, *accumulate(buckets)]
        self.register_buffer("starts", torch.tensor(starts[:-1], dtype=torch.int64), persistent=False)
        self.embedding = nn.Parameter(torch.empty(starts[-1], EMBEDDED).normal_(std=0.1))
        inputs = EMBEDDED * len(buckets)
        self.weight = _uniform(many, inputs, outputs, inputs + others)

    def rows(self, indices: Tensor) -> Tensor:
        """The rows of the table that hold these bucket indices [..., C]."""
        return indices + self.starts

    def forward(self, rows: Tensor, said: Tensor) -> Tensor:
        """Rows [many, b, C]; `said` [many, b, outputs] is what the layer makes of the other inputs."""
        return torch.baddbmm(said, functional.embedding(rows, self.embedding).flatten(2), self.weight)


def _uniform(many: int, inputs: int, outputs: int, fan_in: int) -> nn.Parameter:
    bound = 1.0 / math.sqrt(max(fan_in, 1))
    return nn.Parameter(torch.empty(many, inputs, outputs).uniform_(-bound, bound))
