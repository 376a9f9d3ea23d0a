"""Learning-rate schedules (pure): the share of the declared learning rate that each step of a run uses.

Every schedule rises to 1 over the first `warm_up` share of the steps, then

    constant    stays at 1;
    cosine      falls along half a cosine to nearly 0 (Loshchilov and Hutter, "SGDR", 2017, without restarts);
    one_cycle   falls as cosine does, and also rises along half a cosine, from 1/25 (Smith and Topin,
                "Super-Convergence", 2018); without a declared warm-up it rises over the first three tenths.
"""

from __future__ import annotations

import math

from tailrace.declaration.training import LearningRateSchedule

_CYCLE_FIRST = 1 / 25
_CYCLE_WARM_UP = 0.3


def share(schedule: LearningRateSchedule, step: int, steps: int, warm_up: float = 0.0) -> float:
    """Share of the learning rate for step number `step`, 0 <= step < steps: above 0 and at most 1."""
    cycle = schedule == "one_cycle"
    rising = math.floor((warm_up or _CYCLE_WARM_UP if cycle else warm_up) * steps)
    if step < rising:
        return _CYCLE_FIRST + (1 - _CYCLE_FIRST) * _half_cosine(1 - step / rising) if cycle else (step + 1) / rising
    return 1.0 if schedule == "constant" else _half_cosine((step - rising) / (steps - rising))


def _half_cosine(at: float) -> float:
    """Cosine decay from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * at))
