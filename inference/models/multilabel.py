"""Several yes-or-no labels of one event in one number (pure): bit i is set where the i-th of them applies.

So a target is one float32, whatever the task; it is exact for up to MOST labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

MOST = 24


def packed(applying: Iterable[int]) -> float:
    """The target of an event to which the labels of these indices apply, each named once."""
    return float(sum(1 << index for index in applying))


def unpacked(targets: NDArray[np.float32], labels: int) -> NDArray[np.float32]:
    """Targets [n] as 0 or 1 a label: [n, labels]."""
    bits = targets.astype(np.int64)[:, None] >> np.arange(labels) & 1
    return bits.astype(np.float32)


def unpacked_tensor(targets: Tensor, labels: int) -> Tensor:
    """The same of targets [...], on their device: [..., labels]."""
    import torch

    bits = targets.long()[..., None] >> torch.arange(labels, device=targets.device) & 1
    return bits.float()
