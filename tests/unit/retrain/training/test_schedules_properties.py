"""Learning-rate schedules: their bounds, their ends, and that they rise and then fall."""

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
    """Each step learns something, and none faster than declared; one step takes the whole rate."""
    shares = [share(schedule, step, steps, warm_up) for step in range(steps)]
    assert all(0.0 < one <= 1.0 for one in shares)
    assert max(shares) == 1.0


@given(schedules, lengths, warm_ups)
def test_it_rises_and_then_does_not(schedule: LearningRateSchedule, steps: int, warm_up: float) -> None:
    """Up to the whole rate each step takes more than the one before, from there on never more."""
    shares = [share(schedule, step, steps, warm_up) for step in range(steps)]
    top = shares.index(1.0)
    assert all(one < next_ for one, next_ in pairwise(shares[: top + 1]))
    assert all(one >= next_ for one, next_ in pairwise(shares[top:]))


@given(schedules, st.integers(100, 2_000), warm_ups)
def test_the_warm_up_takes_its_share_of_the_steps(schedule: LearningRateSchedule, steps: int, warm_up: float) -> None:
    """The whole rate is reached where the warm-up ends; one cycle has one even when none is declared."""
    shares = [share(schedule, step, steps, warm_up) for step in range(steps)]
    declared = warm_up or (0.3 if schedule == "one_cycle" else 0.0)
    assert abs(shares.index(1.0) - declared * steps) < 2


@given(st.integers(1_000, 5_000), st.floats(0.0, 0.5))
def test_the_ends(steps: int, warm_up: float) -> None:
    """A cosine ends near nothing, a constant where it was; one cycle begins at a twenty-fifth."""
    assert share("cosine", steps - 1, steps, warm_up) < 1e-4
    assert share("one_cycle", steps - 1, steps, warm_up) < 1e-4
    assert share("constant", steps - 1, steps, warm_up) == 1.0
    assert share("one_cycle", 0, steps, 0.3) == pytest.approx(1 / 25)
