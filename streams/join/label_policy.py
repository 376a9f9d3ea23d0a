"""Choice among several labels of one event (pure)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailrace.declaration.label import Winner
from tailrace.declaration.task import LabelValue


class Given(msgspec.Struct, gc=False):
    """A label that was read: value, time (unix seconds), offset in the labels partition, and the value as a number.

    The task converts the value to the number; MAX, MIN and MEAN compare numbers.
    """

    value: LabelValue
    time: float
    offset: int
    number: float


def winner(wins: Winner, given: Sequence[Given]) -> Given:
    """Return the label that the example gets; with MEAN, a new label: the mean, at the time of the last label."""
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
