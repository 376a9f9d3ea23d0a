"""Weight averaging: the exponential moving average of a run's parameters. Importing this imports torch.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


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
