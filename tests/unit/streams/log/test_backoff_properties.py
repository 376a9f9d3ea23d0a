"""Properties of the pauses between attempts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.streams.log.backoff import Backoff

seconds = st.floats(1e-4, 1e3)


@given(seconds, seconds, st.integers(0, 3), st.integers(1, 40))
def test_pauses_double_up_to_the_longest(a: float, b: float, immediate: int, count: int) -> None:
    """After the immediate attempts each pause is twice the one before, bounded by the longest; a reset begins again."""
    first, longest = sorted((a, b))
    backoff = Backoff(first, longest, immediate=immediate)
    pauses = [backoff.pause() for _ in range(immediate + count)]
    assert count + immediate == backoff.failures
    assert [0.0] * immediate + [first] == pauses[: immediate + 1]
    assert all(later == min(2 * earlier, longest) for earlier, later in itertools.pairwise(pauses[immediate:]))
    backoff.reset()
    assert backoff.failures == 0
    assert pauses == [backoff.pause() for _ in pauses]


@given(seconds, st.floats(0, 1), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=10))
def test_random_pauses_stay_in_their_range(first: float, spread: float, draws: list[float]) -> None:
    """A random pause lies between (1 - spread) of the planned pause and the planned pause."""
    source = iter(draws)
    random = Backoff(first, 8 * first, spread=spread, random=lambda: next(source))
    planned = Backoff(first, 8 * first)
    for _ in draws:
        drawn, most = random.pause(), planned.pause()
        assert (1 - spread) * most * (1 - 1e-9) <= drawn <= most


@pytest.mark.parametrize(
    ("first", "longest", "spread"), [(0.0, 1.0, 0.5), (2.0, 1.0, 0.5), (-1.0, 1.0, 0.5), (1.0, 2.0, 1.5)]
)
def test_impossible_ranges_are_refused(first: float, longest: float, spread: float) -> None:
    """A range without pauses, or a spread outside [0, 1], raises ValueError."""
    with pytest.raises(ValueError, match="back-off"):
        Backoff(first, longest, spread=spread)
