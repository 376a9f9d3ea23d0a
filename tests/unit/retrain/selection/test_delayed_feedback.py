"""Late positives: the corrected estimate of the positive rate is nearer to the truth than the uncorrected one.

Rates are compared among events of equal chance, as a model sees them: an event that comes twice counts more, and one
that is likely to comes more often.
"""

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
    """`chance`: P(y=1|x), which differs by event; `delay`: of the positives, exponential with mean 1."""

    chance: Floats
    positive: NDArray[np.bool_]
    delay: Floats


def world(seed: int) -> World:
    random = np.random.default_rng(seed)
    chance = random.choice([0.02, 0.1, 0.4], COUNT)
    return World(chance, random.random(COUNT) < chance, random.exponential(1.0, COUNT))


def rate(positive: NDArray[np.bool_], weights: Floats) -> float:
    """The share of positives that a weighted log-loss makes a constant model say."""
    return float((weights * positive).sum() / weights.sum())


def assert_nearer(truth: World, positive: NDArray[np.bool_], weights: Floats, chance: Floats) -> None:
    """The weighted rate is within a tenth of the share that was positive in truth, and nearer than the bare one."""
    for one in (0.02, 0.1, 0.4):
        group, actual = chance == one, truth.positive[truth.chance == one].mean()
        bare, corrected = rate(positive[group], np.ones(group.sum())), rate(positive[group], weights[group])
        assert corrected == pytest.approx(actual, rel=0.1)
        assert abs(corrected - actual) < abs(bare - actual)


@pytest.mark.parametrize("wait", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_examples_that_exist_once_are_corrected(wait: float, seed: int) -> None:
    """As the join gives them: late positives are negatives for good. The weights bring the rate back, in each group of
    events, from served chances and the delays of the positives that came in time."""
    truth = world(seed)
    seen = truth.positive & (truth.delay < wait)
    share = late_share(truth.delay[seen], wait)
    assert share == pytest.approx(np.exp(-wait), abs=0.03)
    assert_nearer(truth, seen, late_positive_weights(seen, ~seen, truth.chance, share), truth.chance)


def test_without_lateness_nothing_is_changed() -> None:
    """When no positive is late, every example counts 1."""
    positive, chance = np.array([True, False]), np.array([0.3, 0.3])
    assert late_positive_weights(positive, ~positive, chance, 0.0).tolist() == [1.0, 1.0]


def test_a_negative_that_was_told_counts_one() -> None:
    """Only what is negative for want of a label is in doubt."""
    weights = late_positive_weights(np.array([False, False]), np.array([True, False]), np.array([0.5, 0.5]), 0.5)
    assert weights.tolist() == [pytest.approx(2 / 3), 1.0]


@pytest.mark.parametrize(
    ("delays", "share"),
    [([], 0.0), ([0.0, 0.0], 0.0), ([0.9, 1.0], MOST_LATE), ([1e-6] * 9, 0.0), ([2.0, 3.0], MOST_LATE)],
)
def test_the_late_share_is_bounded(delays: list[float], share: float) -> None:
    """Delays that tell little, or lie beyond the wait, give no more than MOST_LATE; none gives nothing."""
    assert late_share(np.array(delays), 1.0) == pytest.approx(share, abs=1e-6)
