"""AdamW on torch's functional form. Importing this imports torch.

The arithmetic, to the last bit, is that of `torch.optim.AdamW(fused=True)`: Loshchilov and Hutter, "Decoupled Weight
Decay Regularization", 2019. That object imports torch's compiler when it is first used, which would take half of the
CPU seconds that a training process needs to start.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adamw import adamw

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class AdamW:
    """Moves parameters by their gradients; those without a gradient stay as they are."""

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in self._parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step of this length; the gradients are then gone."""
        moved = [
            (parameter, parameter.grad, *state)
            for parameter, *state in zip(self._parameters, self._first, self._second, self._steps, strict=True)
            if parameter.grad is not None
        ]
        if not moved:
            return
        parameters, gradients, first, second, steps = map(list, zip(*moved, strict=True))
        adamw(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=self._weight_decay,
            eps=_EPSILON,
            maximize=False,
        )
        for parameter in parameters:
            parameter.grad = None
