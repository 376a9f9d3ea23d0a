"""Positives that come late (pure): how much a label counts, when some negatives are positives that are still to come.

With `Label(missing=False)` an event without a label becomes a negative when its wait has passed. A positive that takes
longer is then a false negative, for good: the join gives each event one example. So of the truth p = P(y=1|x) the
examples show p (1 - s), where s is the share of positives that are late, and the weights

    positive         1 / (1 - s)
    implicit negative    (1 - p) / (1 - p + p s)

make a log-loss unbiased (importance sampling; a negative that was told as such counts 1). p is what was served. s is
estimated from the delays of the positives that came in time, as if delays were exponential (Chapelle, "Modeling delayed
feedback in display advertising", 2014), cut off at the wait.

The corrections known from the literature are for logs that hold an event twice: as a negative first, and as a positive
when that comes. The join never does so; `fake_negative_weights` and `elapsed_time_weights` are for examples that come
from such a log. There an event that comes twice also counts more as an event, which those papers accept.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MOST_LATE = 0.9  # share of positives that may be taken to be late: beyond, delays say too little
_STEPS = 60

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


def late_share(delays: Floats, wait: float) -> float:
    """The share of positives that come after `wait`, estimated from the delays [n] (seconds) of those that came within:
    maximum likelihood of a cut exponential. 0 without delays.

    The mean of an exponential of rate r cut at w is 1/r - w / (exp(r w) - 1): it falls from w/2 to 0 as r grows.
    """
    if not len(delays):
        return 0.0
    mean = float(np.clip(delays, 0.0, wait).mean()) / wait
    low, high = 1e-9, 1e9  # the rate, in waits: searched by halving its logarithm's interval
    for _ in range(_STEPS):
        rate = math.sqrt(low * high)
        if _cut_mean(rate) > mean:
            low = rate
        else:
            high = rate
    return min(math.exp(-math.sqrt(low * high)), MOST_LATE)


def _cut_mean(rate: float) -> float:
    if rate < 1e-4:
        return 0.5 - rate / 12
    return 1 / rate - (1 / math.expm1(rate) if rate < 700 else 0.0)


def once_weights(positive: Flags, implicit: Flags, chance: Floats, late: float) -> Floats:
    """Weights [n] of examples that exist once: `implicit` ones are negatives for want of a label, `chance` is P(y=1|x)
    as served, `late` the share of positives that come after the wait."""
    told = np.where(positive, 1 / (1 - late), 1.0)
    return np.where(implicit, (1 - chance) / (1 - chance + chance * late), told)


def fake_negative_weights(positive: Flags, chance: Floats) -> Floats:
    """Weights [n] where every event comes at once as a negative, and a positive again when it comes; `chance` is
    P(y=1|x) as the model has it.

    The log then shows b(y=1|x) = p / (1 + p), so a positive counts 1 + p and a negative (1 - p)(1 + p): Ktena et al.,
    "Addressing delayed feedback for continuous training with neural networks in CTR prediction", 2019.
    """
    return np.where(positive, 1.0, 1.0 - chance) * (1.0 + chance)


def elapsed_time_weights(positive: Flags, delayed: Floats, real: Floats) -> Floats:
    """Weights [n] where an event comes when some time has elapsed, with the label that it has by then, and a positive
    that came later again when it comes.

    `delayed`: P(positive and later than that | x); `real`: P(negative for good | x, negative by then). The log shows
    q(y=1|x) = p / (1 + delayed), so a positive counts 1 + delayed and a negative (1 + delayed) real: ES-DFM, Yang et
    al., "Capturing delayed feedback in conversion rate prediction via elapsed-time sampling", 2021.
    """
    return np.where(positive, 1.0, real) * (1.0 + delayed)
