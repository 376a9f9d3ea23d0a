"""AdamW by torch's fused operation. Importing this imports torch.

Results equal those of `torch.optim.AdamW(fused=True)` to the bit: Loshchilov and Hutter, "Decoupled Weight Decay
Regularization", 2019. That class imports torch's compiler on first use, which would take half of the CPU seconds that a
training process needs to start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress, groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class _ParameterGroup(NamedTuple):
    """Parameters of one dtype that have gradients, and their state: both moments and the number of steps taken."""

    parameters: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    taken: list[Tensor]


class AdamW:
    """AdamW for parameters on one device; parameters without a gradient are not changed."""

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._weight_decay = weight_decay
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        device = self._parameters[0].device if self._parameters else None
        self._taken = torch.zeros(len(self._parameters), device=device)
        self._groups: dict[tuple[bool, ...], tuple[Tensor, list[_ParameterGroup]]] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step with learning rate `rate`, and clear the gradients."""
        with_gradient = tuple(parameter.grad is not None for parameter in self._parameters)
        if with_gradient not in self._groups:
            mask = torch.tensor(with_gradient, device=self._taken.device).float()
            self._groups[with_gradient] = mask, self._grouped(with_gradient)
        ones, groups = self._groups[with_gradient]
        self._taken.add_(ones)  # all at once: separate additions take as long as the step itself
        for parameters, first, second, taken in groups:
            torch._fused_adamw_(
                parameters,
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                first,
                second,
                [],
                taken,
                lr=rate,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                weight_decay=self._weight_decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )
            for parameter in parameters:
                parameter.grad = None

    def _grouped(self, with_gradient: Sequence[bool]) -> list[_ParameterGroup]:
        state = zip(self._parameters, self._first, self._second, self._taken.unbind(), strict=True)
        chosen = sorted(compress(state, with_gradient), key=lambda each: str(each[0].dtype))
        return [
            _ParameterGroup(*map(list, zip(*some, strict=True)))
            for _, some in groupby(chosen, lambda each: each[0].dtype)
        ]

    @contextmanager
    def lookahead(self, share: float) -> Iterator[None]:
        """Interpolate between the parameters before and after the steps taken inside: `share` 1 keeps the steps.

        The part on which the steps disagree cancels out: Zhang et al., "Lookahead optimizer: k steps forward, 1 step
        back", 2019.
        """
        before = [parameter.detach().clone() for parameter in self._parameters]
        yield
        with torch.no_grad():
            torch._foreach_lerp_(self._parameters, before, 1.0 - share)
