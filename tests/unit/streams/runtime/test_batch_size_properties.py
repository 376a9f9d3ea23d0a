"""The batch size converges to its target and never leaves its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.streams.runtime.batch_size import BatchSize

TARGET, SMALLEST, LARGEST = 0.02, 64, 8192


def work(batch: BatchSize, per_record: float, turns: int, overhead: float = 0.0) -> list[int]:
    """Run full batches of records with a constant time each; return the sizes chosen."""
    sizes = []
    for _ in range(turns):
        sizes.append(batch.size)
        batch.took(batch.size, overhead + batch.size * per_record)
    return sizes


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 1e6))), st.integers(1, 500), st.integers(0, 5_000))
def test_it_stays_within_its_bounds(history: list[tuple[int, float]], smallest: int, more: int) -> None:
    """Whatever batches took, the size lies between the smallest and the largest."""
    batch = BatchSize(TARGET, smallest, smallest + more)
    for records, seconds in history:
        batch.took(records, seconds)
        assert smallest <= batch.size <= smallest + more


@given(st.floats(1e-9, 1e-2))
def test_a_backlog_settles_near_the_target(per_record: float) -> None:
    """Under constant work the time of a batch ends within a quarter above the target, and above half of it."""
    batch = BatchSize(TARGET, SMALLEST, LARGEST)
    work(batch, per_record, 60)
    for size in work(batch, per_record, 30):
        seconds = size * per_record
        assert size == SMALLEST or seconds <= 1.25 * TARGET + per_record
        assert size == LARGEST or seconds >= 0.5 * TARGET - per_record


@given(st.integers(0, SMALLEST - 1), st.floats(0, TARGET))
def test_batches_that_were_not_full_say_nothing_about_larger_ones(records: int, seconds: float) -> None:
    """A quick batch that was not full does not make the next one larger."""
    batch = BatchSize(TARGET, SMALLEST, LARGEST)
    before = batch.size
    batch.took(records, seconds)
    assert before == batch.size


def test_one_slow_batch_costs_no_more_than_half() -> None:
    """One slow batch does not collapse the size."""
    batch = BatchSize(TARGET, SMALLEST, LARGEST)
    before = batch.size
    batch.took(before, 100.0)
    assert before // 2 == batch.size


def test_it_grows_again_after_a_slow_time() -> None:
    """Once the work is quick again the largest size is reached within a few dozen batches."""
    batch = BatchSize(TARGET, SMALLEST, LARGEST)
    assert work(batch, 1.0, 20)[-1] == SMALLEST
    assert work(batch, 1e-9, 40)[-1] == LARGEST


@pytest.mark.parametrize("arguments", [(0.0, 1, 2), (-1.0, 1, 2), (1.0, 0, 2), (1.0, 3, 2), (float("nan"), 1, 2)])
def test_bounds_that_make_no_sense_are_refused(arguments: tuple[float, int, int]) -> None:
    """Impossible bounds raise ValueError, which names them."""
    with pytest.raises(ValueError, match="must be positive"):
        BatchSize(*arguments)
