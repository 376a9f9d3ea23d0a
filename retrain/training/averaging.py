"""Parameters that a run trains, and the weights that it ends with. Importing this imports torch.

Moving averages: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from tailrace.errors import DeclarationError


def tuned(module: nn.Module, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Freeze the parameters whose names match the patterns, and return the others.

    Raises DeclarationError for a pattern that matches no parameter, and if no parameter is left.
    """
    names = dict(module.named_parameters())
    for pattern in frozen:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            shown = ", ".join(names)
            raise DeclarationError(f"Training(frozen): {pattern!r} matches no parameter; the network has {shown}")
        for name in matching:
            names[name].requires_grad_(False)
    left = [parameter for parameter in names.values() if parameter.requires_grad]
    if frozen and not left:
        raise DeclarationError(f"Training(frozen={tuple(frozen)!r}) leaves no parameter to train")
    return left


def transfer(module: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Copy into `module` each tensor of `state` that it has by name and shape; returns the number of copied tensors."""
    own = module.state_dict()
    fitting = [name for name, tensor in state.items() if name in own and own[name].shape == tensor.shape]
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(state[name])
    return len(fitting)


class Average:
    """Exponential moving average of parameters; with decay 0 it does nothing.

    After n steps the decay is at most (1 + n) / (10 + n), so that the initial weights do not dominate a short run.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self._averages = [parameter.detach().clone() for parameter in parameters] if decay else []
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages after a step."""
        if self._averages:
            self._steps += 1
            decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
            for average, parameter in zip(self._averages, self._parameters, strict=True):
                average.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages; a second call exchanges them back."""
        for average, parameter in zip(self._averages, self._parameters, strict=False):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)


class Best:
    """Early stopping: the weights of the smallest loss so far, and the number of evaluations since."""

    def __init__(self, module: nn.Module, patience: int) -> None:
        self._module, self._patience = module, patience
        self._least, self._kept = math.inf, self._copied()
        self._since = 0
        self.points: list[tuple[int, float]] = []

    def take(self, step: int, loss: float) -> bool:
        """Record the loss of the module's current weights; True once `patience` evaluations brought no smaller one.

        A NaN loss is never the smallest.
        """
        self.points.append((step, loss))
        if loss < self._least:
            self._least, self._since, self._kept = loss, 0, self._copied()
        else:
            self._since += 1
        return self._since >= self._patience

    @torch.no_grad()
    def restore(self) -> None:
        """Load the best weights into the module."""
        for tensor, kept in zip(self._module.state_dict().values(), self._kept, strict=True):
            tensor.copy_(kept)

    def _copied(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self._module.state_dict().values()]
