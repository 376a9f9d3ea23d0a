"""Interface of a reference learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.history.arrays import Stream
from tailrace.declaration.task import Target, Task

Scores: TypeAlias = NDArray[np.float32]


class ReferenceLearner(Protocol):
    """A learner that scores events and later learns from their labels. Events are numbers into its history."""

    def score(self, event: int) -> Sequence[float] | Scores:
        """Return the scores of an event, shape [outputs]."""

    def learn(self, event: int, target: Target) -> None:
        """Learn from an event whose label has become known."""


LearnerFactory: TypeAlias = Callable[[Stream, Task, int], ReferenceLearner]
"""Makes a learner for (history, task, seed)."""


def initial_scores(task: Task) -> list[float]:
    """Return the scores before anything was learned: those of the base-rate model without a declared base rate."""
    from tailrace.declaration.task import base_rate_scores

    return base_rate_scores(task, None)
