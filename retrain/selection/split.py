"""Which of the selected rows a run trains on, and which are held out for the gate (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tailrace.declaration.data import Window
from tailrace.declaration.online import Online
from tailrace.declaration.training import Training
from tailrace.retrain.selection.buffer import Row, Selection, by_maturity, parted, ranges_of


def divided(selection: Selection, seen: Mapping[int, int], plan: Training, online: Online | None) -> Selection:
    """What the buffer selected, as a run takes it. `seen`: as given to `Buffer.select`."""
    if repeats(plan):
        selection = repeatable(selection, seen)
    return fair(selection, plan) if online else selection


def repeats(plan: Training) -> bool:
    """Whether offsets alone tell which examples a run has learned from."""
    return isinstance(plan.data, Window) and not plan.data.mature_s


def repeatable(selection: Selection, seen: Mapping[int, int]) -> Selection:
    """The same rows in an order that is a function of these rows alone, whatever else the buffer held: so they can be
    read again by their offsets. `seen`: as given to `Buffer.select`."""
    rows = in_order([*selection.train, *selection.holdout], seen)
    cut = len(selection.train)
    return selection._replace(train=rows[:cut], holdout=rows[cut:], ranges=ranges_of(rows[:cut], seen))


def fair(selection: Selection, plan: Training) -> Selection:
    """The same rows divided anew, for a champion that updates keep fresh: those that are held out must be of events
    that came after all training labels were known, or the candidate would know more than what served them could have.

    `Training.held_out` says how many such rows there shall be. Where labels are so late that half of all rows do not
    hold as many, the gate judges by fewer.
    """
    rows = [*selection.train, *selection.holdout]
    times = np.array([row.time for row in rows])
    known = np.maximum.accumulate([row.label_time for row in rows])
    wanted, low, high = plan.held_out(len(rows)), len(rows) // 2, len(rows)
    while high - low > 1:  # the later the cut, the fewer rows behind it are of events that came after it
        cut = (low + high) // 2
        low, high = (cut, high) if (times[cut:] >= known[cut - 1]).sum() >= wanted else (low, cut)
    train = rows[:low]
    return Selection(train, len(train), rows[low:], ranges_of(train))


def in_order(rows: Iterable[Row], seen: Mapping[int, int]) -> list[Row]:
    """The rows below `seen` (partition -> position), then the others, each in order of maturity."""
    known, unseen = parted(by_maturity(rows), lambda row: row.below(seen))
    return known + unseen
