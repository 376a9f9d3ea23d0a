"""Which label counts (pure): the words of a declaration for how long to wait, who wins, what a missing one means."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from streams.events import DeclarationError
from streams.records import LabelValue


class Winner(StrEnum):
    """Which of several labels of one event counts. FIRST is known at once; the others when the window closes."""

    FIRST = "first"
    LAST = "last"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"


class JoinPolicy(msgspec.Struct, frozen=True):
    """How long to wait for a label (seconds of event time), which one wins, and what a missing one means.

    `implicit` is the label given to events whose label never came; None: such events give no example.
    """

    wait: float
    wins: Winner = Winner.FIRST
    implicit: LabelValue | None = None

    def __post_init__(self) -> None:
        if not 0 < self.wait < 1e10:
            raise DeclarationError(f"wait is {self.wait} s: it must be above 0 and below 300 years")


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
