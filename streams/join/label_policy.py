"""Which label counts (pure): the words of a declaration for how long to wait, who wins, what a missing one means."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailrace.declaration.label import Winner
from tailrace.declaration.task import LabelValue


class Given(msgspec.Struct, gc=False):
    """A label that was read: its value, its time (unix seconds), its offset in the labels partition, and the number
    that the task makes of the value: MAX, MIN and MEAN go by it."""

    value: LabelValue
    time: float
    offset: int
    number: float


def winner(wins: Winner, given: Sequence[Given]) -> Given:
    """The label that counts; with MEAN a new one, known when the last was."""
    if wins is Winner.FIRST:
        return given[0]
    if wins is Winner.MAX:
        return max(given, key=lambda g: g.number)
    if wins is Winner.MIN:
        return min(given, key=lambda g: g.number)
    if wins is Winner.MEAN:
        mean = sum(g.number for g in given) / len(given)
        return Given(mean, given[-1].time, given[-1].offset, mean)
    return given[-1]
