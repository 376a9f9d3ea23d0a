"""Learning-rate schedules (pure): which share of the declared rate each step of a run takes.

Each rises to all of it in the first `warm_up` share of the steps, and then:

    constant    stays there;
    cosine      falls along half a cosine to nearly nothing (Loshchilov and Hutter, "SGDR", 2017, without restarts);
    one_cycle   the same, but rises along a cosine too, from 1/25 (Smith and Topin, "Super-Convergence", 2018); without
                a warm-up of its own, over the first three tenths.
"""

from __future__ import annotations

import math

from tailrace.declaration.training import LearningRateSchedule

_CYCLE_FIRST = 1 / 25
_CYCLE_WARM_UP = 0.3


def share(schedule: LearningRateSchedule, step: int, steps: int, warm_up: float = 0.0) -> float:
    """The share of the learning rate, above 0 and at most 1, of step 0 <= step < steps."""
    cycle = schedule == "one_cycle"
    rising = math.floor((warm_up or _CYCLE_WARM_UP if cycle else warm_up) * steps)
    if step < rising:
        return _CYCLE_FIRST + (1 - _CYCLE_FIRST) * _half_cosine(1 - step / rising) if cycle else (step + 1) / rising
    return 1.0 if schedule == "constant" else _half_cosine((step - rising) / (steps - rising))


def _half_cosine(at: float) -> float:
    """1 at 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * at))
