"""Buffer of examples: its bound, the order by maturity, and the selection of a run."""

from __future__ import annotations

import random

import pytest

from tailrace.declaration.training import Training
from tailrace.errors import DeclarationError
from tailrace.retrain.selection.buffer import Buffer, Row

PLAN = Training(holdout=0.2, holdout_least=1, min_examples=1)


def row(partition: int, offset: int, label_time: float) -> Row:
    return Row(partition, offset, label_time - 60, label_time, 1.0, b"{}", None, 0, [0.5])


def offsets(rows: list[Row]) -> list[tuple[int, int]]:
    return [(row.partition, row.offset) for row in rows]


def test_the_oldest_arrivals_make_room() -> None:
    """The buffer never holds more than `window` rows."""
    buffer = Buffer(3)
    buffer.append(row(0, offset, offset) for offset in range(5))
    assert len(buffer) == 3
    assert offsets(buffer.select({}, PLAN).train) + offsets(buffer.select({}, PLAN).holdout) == [(0, 2), (0, 3), (0, 4)]


def test_the_newest_unseen_rows_are_held_out() -> None:
    """A fifth of the rows that the champion has not learned is held out; learned rows come first."""
    buffer = Buffer(100)
    buffer.append(row(0, offset, offset) for offset in range(20))
    chosen = buffer.select({0: 10}, PLAN)
    assert chosen.fresh == 8
    assert offsets(chosen.train) == [(0, offset) for offset in range(18)]
    assert offsets(chosen.holdout) == [(0, 18), (0, 19)]
    assert chosen.ranges == {0: (0, 18)}


def test_the_next_run_learns_from_what_was_held_out() -> None:
    """The end of a run's ranges is the start of the next run's fresh rows."""
    buffer = Buffer(100)
    buffer.append(row(0, offset, offset) for offset in range(20))
    end = buffer.select({}, PLAN).ranges[0][1]
    following = buffer.select({0: end}, PLAN)
    assert offsets(following.train[-following.fresh :] + following.holdout) == [(0, n) for n in range(end, 20)]


def test_the_order_does_not_depend_on_how_partitions_were_interleaved() -> None:
    """Any interleaving of the same partitions gives the same selection, and the holdout is a suffix of each."""
    chance = random.Random(3)
    partitions = [[row(p, offset, offset + chance.uniform(-5, 5)) for offset in range(50)] for p in range(3)]
    selections = []
    for _ in range(5):
        waiting, buffer = [list(rows) for rows in partitions], Buffer(1_000)
        while any(waiting):
            buffer.append([chance.choice([rows for rows in waiting if rows]).pop(0)])
        selections.append(buffer.select({0: 7, 1: 20}, PLAN))
    assert all(selection == selections[0] for selection in selections)
    for partition, (_, end) in selections[0].ranges.items():
        assert all(held.offset >= end for held in selections[0].holdout if held.partition == partition)


def test_a_partition_that_fell_out_of_the_window_keeps_the_champions_end() -> None:
    """Recorded positions never go back."""
    buffer = Buffer(10)
    buffer.append(row(1, offset, offset) for offset in range(10))
    assert buffer.select({0: 7}, PLAN).ranges == {0: (7, 7), 1: (0, 8)}


@pytest.mark.parametrize(("unseen", "held"), [(0, 0), (1, 0), (100, 50), (400, 100), (2_000, 200), (50_000, 2_000)])
def test_how_many_are_held_out(unseen: int, held: int) -> None:
    """A tenth of the rows is held out: at least 100, at most 2,000, never more than half."""
    assert Training().held_out(unseen) == held


@pytest.mark.parametrize(
    "wrong",
    [{"window": 0}, {"epochs": 0}, {"learning_rate": float("nan")}, {"holdout": 1.0}, {"half_life": 0}, {"nice": 20}],
)
def test_a_plan_outside_its_ranges_is_refused(wrong: dict[str, float]) -> None:
    """The message names the value and its range."""
    with pytest.raises(DeclarationError, match=next(iter(wrong))):
        Training(**wrong)  # type: ignore[arg-type]
