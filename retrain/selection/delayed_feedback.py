"""Importance weights for positives whose labels come late (pure).

With `Label(missing=False)` an event without a label becomes a negative when its wait has passed. A positive whose label
takes longer stays a false negative, because the join emits one example per event. With the true p = P(y=1|x) and the
share s of positives that are late, the examples show a positive rate of p (1 - s). The weights

    positive             1 / (1 - s)
    implicit negative    (1 - p) / (1 - p + p s)
    labelled negative    1

make a log-loss unbiased (importance sampling). p is the served score. s is estimated from the delays of the positives
that came in time, under the assumption that delays are exponential (Chapelle, "Modeling delayed feedback in display
advertising", 2014), truncated at the wait.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MOST_LATE = 0.9  # bound of the estimated share of late positives: delays do not support a larger estimate
_STEPS = 60

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


def late_share(delays: Floats, wait: float) -> float:
    """Estimate the share of positives that come after `wait`, 0 to MOST_LATE; 0 without delays.

    `delays` [n], in seconds, are those of the positives that came within the wait. Maximum likelihood of a truncated
    exponential: its mean with rate r, truncated at w, is 1/r - w / (exp(r w) - 1), which falls from w/2 to 0 as r
    grows, so r is found by bisection.
    """
    if not len(delays):
        return 0.0
    mean = float(np.clip(delays, 0.0, wait).mean()) / wait
    low, high = 1e-9, 1e9  # rate in 1 / wait; bisection on a logarithmic scale
    for _ in range(_STEPS):
        rate = math.sqrt(low * high)
        if _truncated_mean(rate) > mean:
            low = rate
        else:
            high = rate
    return min(math.exp(-math.sqrt(low * high)), MOST_LATE)


def _truncated_mean(rate: float) -> float:
    if rate < 1e-4:
        return 0.5 - rate / 12
    return 1 / rate - (1 / math.expm1(rate) if rate < 700 else 0.0)


def late_positive_weights(positive: Flags, implicit: Flags, chance: Floats, late: float) -> Floats:
    """Compute the weights [n] of examples.

    `implicit` marks negatives that only stand for a missing label, `chance` is P(y=1|x) as served, `late` the share of
    positives that come after the wait.
    """
    labelled = np.where(positive, 1 / (1 - late), 1.0)
    return np.where(implicit, (1 - chance) / (1 - chance + chance * late), labelled)
