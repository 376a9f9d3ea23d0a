"""Level of a drift statistic, with the threshold at which it becomes drift (pure)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Losses: TypeAlias = NDArray[np.float64]


class Level(NamedTuple):
    """Value of a statistic, and the threshold above which it is drift."""

    score: float
    threshold: float
