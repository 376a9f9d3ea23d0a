"""The layers of the default network: those of several networks in one product. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDED = 8  # numbers that a category value is described by
_POOL = 1_024  # masks of a layer


def masks(rows: Sequence[int], width: int, dropped: float) -> Tensor:
    """Masks [*rows, width] for dropout. Each row gets one of a thousand: to draw a number for each value takes longer
    than the layer."""
    return functional.embedding(torch.randint(_POOL, rows), _pool(width, dropped))


@cache
def _pool(width: int, dropped: float) -> Tensor:
    kept = torch.rand(_POOL, width, generator=torch.Generator().manual_seed(width)) >= dropped
    return kept / (1.0 - dropped)


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


class Learned(torch.autograd.Function):
    """What several networks of two hidden layers say as they learn, with dropout: the layers above as one operation.

    At these sizes, what autograd does between the products costs as much as the products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        rows: Tensor | None,
        dropped: float,
        layers: Sequence[Layers],
        categories: Categories | None,
        *parameters: Tensor,
    ) -> Tensor:
        """Encoded numbers [many, b, encoded] and rows of the table [many, b, C] -> [many, b, outputs]. `parameters`:
        all that gradients are wanted of, see `learned`."""
        first, second, head = layers
        said = first(encoded)
        described = None
        if categories is not None and rows is not None:
            described = functional.embedding(rows, categories.embedding).flatten(2)
            said = said.baddbmm_(described, categories.weight)
        one = said.relu_().mul_(masks(said.shape[:2], said.shape[2], dropped))
        two = second(one).relu_()
        two.mul_(masks(two.shape[:2], two.shape[2], dropped))
        ctx.layers, ctx.categories, ctx.kept = layers, categories, 1.0 - dropped
        ctx.save_for_backward(encoded, rows, described, one, two)
        outputs: Tensor = head(two)
        return outputs

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the parameters, in their order."""
        encoded, rows, described, one, two = ctx.saved_tensors
        _, second, head = ctx.layers
        outer = _through(wanted, head, two, ctx.kept)
        inner = _through(outer, second, one, ctx.kept)
        gradients = [*_of(encoded, inner), *_of(one, outer), *_of(two, wanted)]
        if ctx.categories is not None:
            table = torch.zeros_like(ctx.categories.embedding)
            moved = torch.bmm(inner, ctx.categories.weight.transpose(1, 2))
            table.index_add_(0, rows.flatten(), moved.view(-1, table.shape[1]))
            gradients += [table, torch.bmm(described.transpose(1, 2), inner)]
        return (None,) * 5 + tuple(gradients)


def learned(
    encoded: Tensor, rows: Tensor | None, layers: Sequence[Layers], categories: Categories | None, dropped: float
) -> Tensor:
    """See `Learned`."""
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    if categories is not None:
        parameters += [categories.embedding, categories.weight]
    said: Tensor = Learned.apply(  # type: ignore[no-untyped-call]
        encoded, rows, dropped, layers, categories, *parameters
    )
    return said


def _through(gradient: Tensor, layer: Layers, inputs: Tensor, kept: float) -> Tensor:
    """The gradient of what came into a layer [many, b, inputs], back before dropout and rectifier: where they left
    nothing it is 0."""
    back = torch.bmm(gradient, layer.weight.transpose(1, 2)).div_(kept)
    through: Tensor = torch.ops.aten.threshold_backward(back, inputs, 0.0)
    return through


def _of(inputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a layer's weight and bias."""
    return torch.bmm(inputs.transpose(1, 2), gradient), gradient.sum(1, keepdim=True)
