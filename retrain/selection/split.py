"""Held-out split of a run: rows to train on and rows for the gate (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tailrace.declaration.data import Window
from tailrace.declaration.online import Online
from tailrace.declaration.training import Training
from tailrace.retrain.selection.buffer import Row, Selection, by_maturity, partition_rows, ranges_of


def split(selection: Selection, seen: Mapping[int, int], plan: Training, online: Online | None) -> Selection:
    """Split the rows that the buffer selected as a run needs them. `seen`: as given to `Buffer.select`."""
    if repeats(plan):
        selection = repeatable(selection, seen)
    return fair(selection, plan) if online else selection


def repeats(plan: Training) -> bool:
    """True if offsets alone identify the examples that a run has learned, so that it can be rebuilt."""
    return isinstance(plan.data, Window) and not plan.data.mature_s


def repeatable(selection: Selection, seen: Mapping[int, int]) -> Selection:
    """Order the rows by a function of these rows alone, independent of the rest of the buffer.

    They can then be read again by their offsets. `seen`: as given to `Buffer.select`.
    """
    rows = in_order([*selection.train, *selection.holdout], seen)
    cut = len(selection.train)
    return selection._replace(train=rows[:cut], holdout=rows[cut:], ranges=ranges_of(rows[:cut], seen))


def fair(selection: Selection, plan: Training) -> Selection:
    """Split the rows for a champion that online updates keep fresh.

    Hold out only events that occurred after every training label was known; otherwise the candidate has information
    that the serving model did not have. `Training.held_out` is the number of such rows; where labels are so late that
    half of all rows hold fewer, the gate compares on fewer.
    """
    rows = [*selection.train, *selection.holdout]
    times = np.array([row.time for row in rows])
    known = np.maximum.accumulate([row.label_time for row in rows])
    wanted, low, high = plan.held_out(len(rows)), len(rows) // 2, len(rows)
    while high - low > 1:  # the later the cut, the fewer held-out events occurred after it
        cut = (low + high) // 2
        low, high = (cut, high) if (times[cut:] >= known[cut - 1]).sum() >= wanted else (low, cut)
    train = rows[:low]
    return Selection(train, len(train), rows[low:], ranges_of(train))


def in_order(rows: Iterable[Row], seen: Mapping[int, int]) -> list[Row]:
    """Order rows: those below `seen` (partition -> position), then the others, both by maturity."""
    known, unseen = partition_rows(by_maturity(rows), lambda row: row.below(seen))
    return known + unseen
