"""Buffer of the examples that a run may learn from (pure): bounded, in a reproducible order, with their offsets.

Order: an example matures when its label is known, and within a partition never before its predecessor. Sorted by that
time, the newest examples are a suffix of every partition. So one offset range per partition records the rows of a run,
and the order is a function of these ranges alone, however reading interleaved the partitions.

The buffer holds at most `window` rows, or as many as the data policy keeps. A row holds the event's JSON as it was
scored (a few hundred bytes).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tailrace.declaration.data import Data, Reservoir, Window
from tailrace.declaration.task import Target
from tailrace.declaration.training import Training
from tailrace.retrain.selection.sampling import Sample, smallest

_WINDOW = Window()
_by_event = attrgetter("time", "partition", "offset")


class Row(msgspec.Struct, frozen=True, gc=False):
    """One labelled example.

    Times are unix seconds. `features`: the event as JSON; `derived`: values of the user functions; `scores`: as served
    by `release`.
    """

    partition: int
    offset: int
    time: float
    label_time: float
    target: Target
    features: bytes
    derived: list[float | None] | None
    release: int
    scores: list[float]
    implicit: bool = False
    """True if no label came within the wait, and the declaration supplied one."""

    def below(self, positions: Mapping[int, int]) -> bool:
        """True if the row's offset is below the position of its partition; False for a partition without one."""
        return self.offset < positions.get(self.partition, 0)


class Selection(NamedTuple):
    """Rows of one run.

    `train`: rows that the champion has learned, followed by the `fresh` newest, which it has not. `holdout`: the newest
    rows of all, for the gate. `ranges`: partition -> [start, end) of the offsets in `train`; a partition without rows
    keeps the champion's end.
    """

    train: list[Row]
    fresh: int
    holdout: list[Row]
    ranges: dict[int, tuple[int, int]]


class Buffer:
    """The newest `window` examples in arrival order, and further examples that the data policy keeps."""

    def __init__(self, window: int, data: Data = _WINDOW) -> None:
        self._rows: deque[Row] = deque()
        self._most = data.held(window)
        self._sample = Sample[Row](data.size, data.seed) if isinstance(data, Reservoir) else None

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows, each partition in offset order; the oldest arrivals leave the buffer."""
        self._rows.extend(rows)
        removed = [self._rows.popleft() for _ in range(len(self._rows) - self._most)]
        if self._sample is not None:
            self._sample.add(removed)

    def select(
        self,
        seen: Mapping[int, int],
        plan: Training,
        *,
        now: float = math.inf,
        through: float = -math.inf,
        changed: int | None = None,
    ) -> Selection:
        """Select the rows of a run; `seen`: partition -> position up to which the champion was trained.

        `now` (unix seconds) decides which rows are mature. A policy with a maturity takes rows in the order of events,
        and the champion has learned those up to `through`, the newest event time it was trained on: quick labels of
        younger events lie between slow labels of older ones, so that offsets do not separate them. `changed`: number
        of labels since the loss rose; a policy that forgets learns from those alone, once there are `min_examples`.
        """
        data = plan.data
        ordered = by_maturity([*self._sample.rows(), *self._rows] if self._sample is not None else self._rows)
        if changed is not None and data.forgets and plan.min_examples <= changed < len(ordered):
            ordered = ordered[-changed:]
        if data.mature_s:
            ordered = [row for row in sorted(ordered, key=_by_event) if row.time + data.mature_s <= now]
            old, new = partition_rows(ordered, lambda row: row.time <= through)
        else:
            old, new = partition_rows(ordered, lambda row: row.below(seen))
        if isinstance(data, Reservoir):
            old = smallest(old, data.size, data.seed)
        cut = len(new) - plan.held_out(len(new))
        train = old + new[:cut]
        return Selection(train, cut, new[cut:], ranges_of(train, seen))


def partition_rows(rows: Iterable[Row], first: Callable[[Row], bool]) -> tuple[list[Row], list[Row]]:
    """Separate the rows for which `first` is true from the others; both keep their order."""
    both: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        both[not first(row)].append(row)
    return both


def by_maturity(rows: Iterable[Row]) -> list[Row]:
    """Sort by (running maximum of the label time in the partition, partition, offset)."""
    keyed: list[tuple[float, int, int, Row]] = []
    latest: dict[int, float] = {}
    for row in rows:
        matured = latest[row.partition] = max(row.label_time, latest.get(row.partition, row.label_time))
        keyed.append((matured, row.partition, row.offset, row))
    keyed.sort(key=lambda entry: entry[:3])
    return [entry[3] for entry in keyed]


def ranges_of(rows: list[Row], seen: Mapping[int, int] = MappingProxyType({})) -> dict[int, tuple[int, int]]:
    """Map each partition to (start, end) of the offsets in `rows`, end exclusive.

    A partition of `seen` without rows gets (n, n), where n is its position in `seen`.
    """
    ranges = {partition: (end, end) for partition, end in seen.items()}
    by_partition = attrgetter("partition")
    for partition, group in groupby(sorted(rows, key=by_partition), by_partition):
        offsets = [row.offset for row in group]
        ranges[partition] = (min(offsets), max(offsets) + 1)
    return ranges
