"""Which weights a run moves, and which it ends with. Importing this imports torch.

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
    """The parameters that a run moves; the others, named by the patterns, are frozen from here on.

    Raises DeclarationError for a pattern that matches no parameter, and when none is left.
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
    """Copy into `module` each tensor of `state` whose name and shape it has; how many those were."""
    own = module.state_dict()
    fitting = [name for name, tensor in state.items() if name in own and own[name].shape == tensor.shape]
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(state[name])
    return len(fitting)


class Average:
    """The moving average of parameters; with decay 0 they are their own average, and nothing is done.

    Early on the average forgets faster, so that a short run is not held back by the weights it began with: after n
    steps the decay is at most (1 + n) / (10 + n).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self._averages = [parameter.detach().clone() for parameter in parameters] if decay else []
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        if self._averages:
            self._steps += 1
            decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
            for average, parameter in zip(self._averages, self._parameters, strict=True):
                average.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages; the second time, back."""
        for average, parameter in zip(self._averages, self._parameters, strict=False):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)


class Best:
    """The weights with the smallest loss so far, and how many evaluations in a row have not been smaller."""

    def __init__(self, module: nn.Module, patience: int) -> None:
        self._module, self._patience = module, patience
        self._least, self._kept = math.inf, self._copied()
        self._since = 0
        self.points: list[tuple[int, float]] = []

    def take(self, step: int, loss: float) -> bool:
        """The module as it is now has this loss; whether patience has run out. A loss that is no number is never
        the smallest."""
        self.points.append((step, loss))
        if loss < self._least:
            self._least, self._since, self._kept = loss, 0, self._copied()
        else:
            self._since += 1
        return self._since >= self._patience

    @torch.no_grad()
    def restore(self) -> None:
        """Give the module the best weights."""
        for tensor, kept in zip(self._module.state_dict().values(), self._kept, strict=True):
            tensor.copy_(kept)

    def _copied(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self._module.state_dict().values()]
