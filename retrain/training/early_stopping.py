"""Early stopping: when a run stops improving, and the best weights that it had. Importing this imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class EarlyStopping:
    """Weights of the smallest loss so far, and the number of evaluations since; ends a run after `patience` of them.

    `points`: (step, loss) of each evaluation.
    """

    def __init__(self, module: nn.Module, patience: int) -> None:
        self._module, self._patience = module, patience
        self._least, self._kept = math.inf, self._copied()
        self._since = 0
        self.points: list[tuple[int, float]] = []

    def record(self, step: int, loss: float) -> bool:
        """Record the loss of the module's current weights. Return True if the run should stop.

        A run should stop once `patience` evaluations in a row brought no smaller loss. NaN is never the smallest.
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
