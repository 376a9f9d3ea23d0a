"""Training targets as arrays (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.task import Target, Task

Targets: TypeAlias = NDArray[np.float32]
"""Targets of n examples: shape [n]; for a multi-label task [n, labels], each 0 or 1."""


def target_array(targets: Sequence[Target], task: Task) -> Targets:
    """Convert the targets of n examples into a float32 array: shape [n], or [n, labels] for a multi-label task."""
    return np.array(targets, np.float32).reshape(len(targets), *task.target_shape)


def labelled(targets: Targets) -> NDArray[np.bool_]:
    """Mask [n] of the examples that have a label: an example without one has NaN targets."""
    known: NDArray[np.bool_] = ~np.isnan(targets if targets.ndim == 1 else targets[:, 0])
    return known
