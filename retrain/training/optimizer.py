"""AdamW on the operation that torch's own calls. Importing this imports torch.

The arithmetic, to the last bit, is that of `torch.optim.AdamW(fused=True)`: Loshchilov and Hutter, "Decoupled Weight
Decay Regularization", 2019. That object imports torch's compiler when it is first used, which would take half of the
CPU seconds that a training process needs to start.
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


class _Moving(NamedTuple):
    """Parameters of one type that have gradients, and their state: both moments, and how many steps were taken."""

    parameters: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    taken: list[Tensor]


class AdamW:
    """Moves parameters, all on one device, by their gradients; those without a gradient stay as they are."""

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._weight_decay = weight_decay
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        device = self._parameters[0].device if self._parameters else None
        self._taken = torch.zeros(len(self._parameters), device=device)
        self._known: dict[tuple[bool, ...], tuple[Tensor, list[_Moving]]] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step of this length; the gradients are then gone."""
        moves = tuple(parameter.grad is not None for parameter in self._parameters)
        if moves not in self._known:
            self._known[moves] = torch.tensor(moves, device=self._taken.device).float(), self._moving(moves)
        ones, moving = self._known[moves]
        self._taken.add_(ones)  # all at once: adding to each takes as long as moving them
        for parameters, first, second, taken in moving:
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

    def _moving(self, moves: Sequence[bool]) -> list[_Moving]:
        state = zip(self._parameters, self._first, self._second, self._taken.unbind(), strict=True)
        chosen = sorted(compress(state, moves), key=lambda each: str(each[0].dtype))
        return [_Moving(*map(list, zip(*some, strict=True))) for _, some in groupby(chosen, lambda each: each[0].dtype)]

    @contextmanager
    def ahead(self, share: float) -> Iterator[None]:
        """The steps taken inside look ahead: in the end the parameters go this share of the way there. What the steps
        disagree on cancels out: Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", 2019."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        yield
        with torch.no_grad():
            torch._foreach_lerp_(self._parameters, before, 1.0 - share)
