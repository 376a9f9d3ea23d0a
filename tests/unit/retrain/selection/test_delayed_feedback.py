"""Late positives: the weighted estimate of the positive rate is nearer to the truth than the unweighted one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tailrace.retrain.selection.delayed_feedback import (
    MOST_LATE,
    late_positive_weights,
    late_share,
)

COUNT = 200_000
Floats = NDArray[np.float64]


class World(NamedTuple):
    """Simulated events. `chance`: P(y=1|x), which differs by event; `delay`: of positives, exponential with mean 1."""

    chance: Floats
    positive: NDArray[np.bool_]
    delay: Floats


def world(seed: int) -> World:
    random = np.random.default_rng(seed)
    chance = random.choice([0.02, 0.1, 0.4], COUNT)
    return World(chance, random.random(COUNT) < chance, random.exponential(1.0, COUNT))


def rate(positive: NDArray[np.bool_], weights: Floats) -> float:
    """Positive rate that a weighted log-loss makes a constant model predict."""
    return float((weights * positive).sum() / weights.sum())


def assert_nearer(truth: World, positive: NDArray[np.bool_], weights: Floats, chance: Floats) -> None:
    """The weighted rate is within a tenth of the true share of positives, and nearer than the unweighted one."""
    for one in (0.02, 0.1, 0.4):
        group, actual = chance == one, truth.positive[truth.chance == one].mean()
        bare, corrected = rate(positive[group], np.ones(group.sum())), rate(positive[group], weights[group])
        assert corrected == pytest.approx(actual, rel=0.1)
        assert abs(corrected - actual) < abs(bare - actual)


@pytest.mark.parametrize("wait", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_examples_that_exist_once_are_corrected(wait: float, seed: int) -> None:
    """The weights restore the positive rate in each group of events, from served chances and the delays in time."""
    truth = world(seed)
    seen = truth.positive & (truth.delay < wait)
    share = late_share(truth.delay[seen], wait)
    assert share == pytest.approx(np.exp(-wait), abs=0.03)
    assert_nearer(truth, seen, late_positive_weights(seen, ~seen, truth.chance, share), truth.chance)


def test_without_lateness_nothing_is_changed() -> None:
    """Every weight is 1 if no positive is late."""
    positive, chance = np.array([True, False]), np.array([0.3, 0.3])
    assert late_positive_weights(positive, ~positive, chance, 0.0).tolist() == [1.0, 1.0]


def test_a_negative_that_was_told_counts_one() -> None:
    """Only negatives that stand for a missing label have a weight below 1."""
    weights = late_positive_weights(np.array([False, False]), np.array([True, False]), np.array([0.5, 0.5]), 0.5)
    assert weights.tolist() == [pytest.approx(2 / 3), 1.0]


@pytest.mark.parametrize(
    ("delays", "share"),
    [([], 0.0), ([0.0, 0.0], 0.0), ([0.9, 1.0], MOST_LATE), ([1e-6] * 9, 0.0), ([2.0, 3.0], MOST_LATE)],
)
def test_the_late_share_is_bounded(delays: list[float], share: float) -> None:
    """Delays that support no estimate, or lie beyond the wait, give at most MOST_LATE; no delays give 0."""
    assert late_share(np.array(delays), 1.0) == pytest.approx(share, abs=1e-6)
