"""Learning-rate schedules: their bounds, their ends, and their shape."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.declaration.training import SCHEDULES, LearningRateSchedule
from tailrace.retrain.training.schedules import share

schedules = st.sampled_from(SCHEDULES)
lengths = st.integers(1, 2_000)
warm_ups = st.floats(0.0, 0.99)


@given(schedules, lengths, warm_ups)
def test_every_step_takes_a_share(schedule: LearningRateSchedule, steps: int, warm_up: float) -> None:
    """Each step has a share above 0 and at most 1; a single step has 1."""
    shares = [share(schedule, step, steps, warm_up) for step in range(steps)]
    assert all(0.0 < one <= 1.0 for one in shares)
    assert max(shares) == 1.0


@given(schedules, lengths, warm_ups)
def test_it_rises_and_then_does_not(schedule: LearningRateSchedule, steps: int, warm_up: float) -> None:
    """The share rises until the warm-up ends, and never afterwards."""
    shares = [share(schedule, step, steps, warm_up) for step in range(steps)]
    top = shares.index(1.0)
    assert all(one < next_ for one, next_ in pairwise(shares[: top + 1]))
    assert all(one >= next_ for one, next_ in pairwise(shares[top:]))


@given(schedules, st.integers(100, 2_000), warm_ups)
def test_the_warm_up_takes_its_share_of_the_steps(schedule: LearningRateSchedule, steps: int, warm_up: float) -> None:
    """The share is 1 where the warm-up ends; one_cycle has a warm-up even if none is declared."""
    shares = [share(schedule, step, steps, warm_up) for step in range(steps)]
    declared = warm_up or (0.3 if schedule == "one_cycle" else 0.0)
    assert abs(shares.index(1.0) - declared * steps) < 2


@given(st.integers(1_000, 5_000), st.floats(0.0, 0.5))
def test_the_ends(steps: int, warm_up: float) -> None:
    """A cosine ends near 0, a constant at 1; one_cycle begins at 1/25."""
    assert share("cosine", steps - 1, steps, warm_up) < 1e-4
    assert share("one_cycle", steps - 1, steps, warm_up) < 1e-4
    assert share("constant", steps - 1, steps, warm_up) == 1.0
    assert share("one_cycle", 0, steps, 0.3) == pytest.approx(1 / 25)
