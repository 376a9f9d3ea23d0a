"""Layers of the default networks: one batched product computes the layer of several networks. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDED = 8  # dimensions of the embedding of a category value
_OFFSETS = 1 << 14  # possible offsets of dropout masks in the table of random numbers


def masks(rows: Sequence[int], widths: Sequence[int], dropped: float) -> list[Tensor]:
    """Draw dropout masks of shapes [*rows, width], one for each width.

    Each is a window at a random offset of a fixed table: drawing a number per value takes longer than the layer.
    """
    sizes = [math.prod(rows) * width for width in widths]
    table, offset = _mask_table(sum(sizes), dropped), int(torch.randint(_OFFSETS, ()))
    offsets = accumulate(sizes[:-1], initial=offset)
    return [table[at : at + size].view(*rows, width) for at, size, width in zip(offsets, sizes, widths, strict=True)]


@lru_cache(maxsize=16)
def _mask_table(size: int, dropped: float) -> Tensor:
    kept = torch.rand(size + _OFFSETS, generator=torch.Generator().manual_seed(size)) >= dropped
    return kept / (1.0 - dropped)


class Layers(nn.Module):
    """One linear layer of each of `many` networks: [many, b, inputs] -> [many, b, outputs].

    `others`: number of further inputs that another module adds to the same outputs; they count for the initialisation.
    """

    def __init__(self, many: int, inputs: int, outputs: int, others: int = 0) -> None:
        super().__init__()
        self.weight = _uniform(many, inputs, outputs, inputs + others)
        self.bias = _uniform(many, 1, outputs, inputs + others)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)


class Categories(nn.Module):
    """Embeddings of all category columns in one table, and their part of the first layer.

    That part is separate from the part of the numbers, whose inputs need no gradient.
    """

    starts: Tensor

    def __init__(self, many: int, buckets: Sequence[int], others: int, outputs: int) -> None:
        super().__init__()
        starts = [0, *accumulate(buckets)]
        self.register_buffer("starts", torch.tensor(starts[:-1], dtype=torch.int64), persistent=False)
        self.embedding = nn.Parameter(torch.empty(starts[-1], EMBEDDED).normal_(std=0.1))
        inputs = EMBEDDED * len(buckets)
        self.weight = _uniform(many, inputs, outputs, inputs + others)

    def rows(self, indices: Tensor) -> Tensor:
        """Table rows of bucket indices [..., C]."""
        return indices + self.starts

    def forward(self, rows: Tensor, hidden: Tensor) -> Tensor:
        """Add the part of the categories, table rows [many, b, C], to the part `hidden` [many, b, outputs] of the
        other inputs."""
        return torch.baddbmm(hidden, functional.embedding(rows, self.embedding).flatten(2), self.weight)


def _uniform(many: int, inputs: int, outputs: int, fan_in: int) -> nn.Parameter:
    bound = 1.0 / math.sqrt(max(fan_in, 1))
    return nn.Parameter(torch.empty(many, inputs, outputs).uniform_(-bound, bound))


@torch.no_grad()
def set_gradients(
    encoded: Tensor,
    rows: Tensor,
    dropout: Sequence[Tensor],
    layers: Sequence[Layers],
    categories: Categories | None,
    dropped: float,
    loss_gradient: Callable[[Tensor], Tensor],
) -> None:
    """Set the gradient of each parameter of several networks of two hidden layers, with dropout.

    Encoded numbers [many, b, encoded], table rows [many, b, C] and masks of the hidden layers [many, b, outputs].
    `loss_gradient` takes the outputs [many, b, outputs] and returns the gradient of the loss with respect to them.
    Backpropagation is written out, because at these sizes autograd costs as much as the products themselves.
    """
    # Attributes are looked up once and the layers not called: in a step of a millisecond that saves a twentieth.
    (first, first_bias), (second, second_bias), (head, head_bias) = ((layer.weight, layer.bias) for layer in layers)
    scale = 1.0 / (1.0 - dropped)
    hidden = torch.baddbmm(first_bias, encoded, first)
    if categories is not None:
        table, flat = categories.embedding, rows.flatten()
        embedded = table.index_select(0, flat).view(*rows.shape[:2], -1)  # embedding() takes twice as long
        hidden = hidden.baddbmm_(embedded, categories.weight)
    one = hidden.relu_().mul_(dropout[0])
    two = torch.baddbmm(second_bias, one, second).relu_().mul_(dropout[1])
    outer = loss_gradient(torch.baddbmm(head_bias, two, head))
    head.grad, head_bias.grad = _parameter_gradients(two, outer)
    middle = _input_gradient(outer, head, two, scale)
    second.grad, second_bias.grad = _parameter_gradients(one, middle)
    inner = _input_gradient(middle, second, one, scale)
    first.grad, first_bias.grad = _parameter_gradients(encoded, inner)
    if categories is not None:
        moved = torch.bmm(inner, categories.weight.mT)
        categories.weight.grad = torch.bmm(embedded.mT, inner)
        categories.embedding.grad = torch.zeros_like(table).index_add_(0, flat, moved.view(-1, EMBEDDED))


def _parameter_gradients(inputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a layer's weight and bias, from the gradient of its outputs."""
    return torch.bmm(inputs.mT, gradient), gradient.sum(1, keepdim=True)


def _input_gradient(gradient: Tensor, weight: Tensor, inputs: Tensor, scale: float) -> Tensor:
    """Gradient before the dropout (which scales by `scale`) and the ReLU that gave a layer's inputs [many, b, inputs].

    It is 0 where those inputs are 0.
    """
    back = torch.baddbmm(inputs, gradient, weight.mT, beta=0, alpha=scale)
    through: Tensor = torch.ops.aten.threshold_backward(back, inputs, 0.0)
    return through
