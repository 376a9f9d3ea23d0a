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


def targets_of(targets: Targets) -> list[Target]:
    """Convert an array of targets back into single ones: numbers, or tuples of flags for a multi-label task."""
    return list(map(tuple, targets.tolist())) if targets.ndim == 2 else targets.tolist()


def number_of(target: Target) -> float:
    """Return the target of a task that is not multi-label. Raises TypeError for another one."""
    if isinstance(target, tuple):
        raise TypeError(f"a target of {len(target)} labels is not a number")
    return target


def flags_of(target: Target) -> tuple[float, ...]:
    """Return the target of a multi-label task, 0.0 or 1.0 for each label. Raises TypeError for another one."""
    if not isinstance(target, tuple):
        raise TypeError(f"a target {target} is not one of several labels")
    return target
