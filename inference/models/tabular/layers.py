"""The layers of the default network: those of several networks in one product. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDED = 8  # numbers that a category value is described by
_STARTS = 1 << 14  # of windows of masks


def masks(rows: Sequence[int], widths: Sequence[int], dropped: float) -> list[Tensor]:
    """Masks [*rows, width] for dropout, one for each width: a window at random of numbers drawn once, because to draw a
    number for each value takes longer than the layer."""
    sizes = [math.prod(rows) * width for width in widths]
    tape, start = _tape(sum(sizes), dropped), int(torch.randint(_STARTS, ()))
    starts = accumulate(sizes[:-1], initial=start)
    return [tape[at : at + size].view(*rows, width) for at, size, width in zip(starts, sizes, widths, strict=True)]


@lru_cache(maxsize=16)
def _tape(size: int, dropped: float) -> Tensor:
    kept = torch.rand(size + _STARTS, generator=torch.Generator().manual_seed(size)) >= dropped
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


@torch.no_grad()
def descend(
    encoded: Tensor,
    rows: Tensor,
    hiding: Sequence[Tensor],
    layers: Sequence[Layers],
    categories: Categories | None,
    dropped: float,
    slope: Callable[[Tensor], Tensor],
) -> None:
    """Give each parameter of several networks of two hidden layers the gradient of their loss, with dropout.

    Encoded numbers [many, b, encoded], rows of the table [many, b, C] and masks of the hidden layers
    [many, b, outputs]; `slope` tells the gradient of the loss by what the networks say [many, b, outputs]. Written out,
    because at these sizes what autograd does between the products costs as much as the products.
    """
    # Looked up once, and the layers not called: in a step of a millisecond that is the twentieth part.
    (first, first_bias), (second, second_bias), (head, head_bias) = ((layer.weight, layer.bias) for layer in layers)
    grown = 1.0 / (1.0 - dropped)
    said = torch.baddbmm(first_bias, encoded, first)
    if categories is not None:
        table, flat = categories.embedding, rows.flatten()
        described = table.index_select(0, flat).view(*rows.shape[:2], -1)  # embedding() takes twice as long
        said = said.baddbmm_(described, categories.weight)
    one = said.relu_().mul_(hiding[0])
    two = torch.baddbmm(second_bias, one, second).relu_().mul_(hiding[1])
    outer = slope(torch.baddbmm(head_bias, two, head))
    head.grad, head_bias.grad = _pull(two, outer)
    middle = _through(outer, head, two, grown)
    second.grad, second_bias.grad = _pull(one, middle)
    inner = _through(middle, second, one, grown)
    first.grad, first_bias.grad = _pull(encoded, inner)
    if categories is not None:
        moved = torch.bmm(inner, categories.weight.mT)
        categories.weight.grad = torch.bmm(described.mT, inner)
        categories.embedding.grad = torch.zeros_like(table).index_add_(0, flat, moved.view(-1, EMBEDDED))


def _pull(inputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a layer's weight and bias, from that of what it gave."""
    return torch.bmm(inputs.mT, gradient), gradient.sum(1, keepdim=True)


def _through(gradient: Tensor, weight: Tensor, inputs: Tensor, grown: float) -> Tensor:
    """The gradient of what came into a layer [many, b, inputs], back before dropout, which let the rest grow, and
    rectifier: where they left nothing it is 0."""
    back = torch.baddbmm(inputs, gradient, weight.mT, beta=0, alpha=grown)
    through: Tensor = torch.ops.aten.threshold_backward(back, inputs, 0.0)
    return through
