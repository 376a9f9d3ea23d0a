"""The examples that a run may learn from (pure): bounded, in a reproducible order, with the offsets they came from.

Order: an example matures when its label is known; within a partition never before its predecessor. Sorted by that time,
the newest examples are a suffix of every partition, so "what was trained on" is one offset range a partition, and the
order is a function of those ranges alone, whatever the interleaving in which partitions were read.

Memory: at most `window` rows, or what the data policy holds; each holds the event's JSON as it was scored (a few
hundred bytes).
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
from tailrace.declaration.training import Training
from tailrace.retrain.selection.sampling import Sample, smallest

_WINDOW = Window()
_by_event = attrgetter("time", "partition", "offset")


class Row(msgspec.Struct, frozen=True, gc=False):
    """One example. Times in unix seconds; `features`: the event's JSON; `derived`: the user functions' values;
    `scores`: as served by `release`."""

    partition: int
    offset: int
    time: float
    label_time: float
    target: float
    features: bytes
    derived: list[float | None] | None
    release: int
    scores: list[float]
    implicit: bool = False
    """No label came; the declaration gave one."""

    def below(self, positions: Mapping[int, int]) -> bool:
        """Whether it lies below its partition's position; there is nothing below one that is not given."""
        return self.offset < positions.get(self.partition, 0)


class Selection(NamedTuple):
    """What one run works on.

    `train`: what the champion has seen, then the `fresh` newest that it has not. `holdout`: the newest of all, for the
    gate.
    `ranges`: partition -> [start, end) of the offsets in `train`; a partition without rows keeps the champion's end.
    """

    train: list[Row]
    fresh: int
    holdout: list[Row]
    ranges: dict[int, tuple[int, int]]


class Buffer:
    """The newest `window` examples, in arrival order, and what else the data policy keeps."""

    def __init__(self, window: int, data: Data = _WINDOW) -> None:
        self._rows: deque[Row] = deque()
        self._most = data.held(window)
        self._sample = Sample[Row](data.size, data.seed) if isinstance(data, Reservoir) else None

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows, each partition in offset order; the oldest arrivals make room."""
        self._rows.extend(rows)
        gone = [self._rows.popleft() for _ in range(len(self._rows) - self._most)]
        if self._sample is not None:
            self._sample.add(gone)

    def select(
        self,
        seen: Mapping[int, int],
        plan: Training,
        *,
        now: float = math.inf,
        through: float = -math.inf,
        changed: int | None = None,
    ) -> Selection:
        """Divide the rows for a run; `seen`: partition -> position up to which the champion was trained.

        `now` (unix seconds) decides what is mature. Mature rows are taken in the order of events, and what the champion
        has seen are those up to `through`, the newest event time it was trained on: quick labels of younger events lie
        between slow ones of older, and an offset does not tell them apart. `changed`: labels since the loss rose; a
        policy that forgets learns from those alone, once they are `min_examples`.
        """
        data = plan.data
        ordered = by_maturity([*self._sample.rows(), *self._rows] if self._sample is not None else self._rows)
        if changed is not None and data.forgets and plan.min_examples <= changed < len(ordered):
            ordered = ordered[-changed:]
        if data.mature_s:
            ordered = [row for row in sorted(ordered, key=_by_event) if row.time + data.mature_s <= now]
            old, new = parted(ordered, lambda row: row.time <= through)
        else:
            old, new = parted(ordered, lambda row: row.below(seen))
        if isinstance(data, Reservoir):
            old = smallest(old, data.size, data.seed)
        cut = len(new) - plan.held_out(len(new))
        train = old + new[:cut]
        return Selection(train, cut, new[cut:], ranges_of(train, seen))


def parted(rows: Iterable[Row], first: Callable[[Row], bool]) -> tuple[list[Row], list[Row]]:
    """Those of which it is true, and the others, each in the order in which they came."""
    both: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        both[not first(row)].append(row)
    return both


def by_maturity(rows: Iterable[Row]) -> list[Row]:
    """Sorted by (running maximum of the label time in the partition, partition, offset)."""
    keyed: list[tuple[float, int, int, Row]] = []
    latest: dict[int, float] = {}
    for row in rows:
        matured = latest[row.partition] = max(row.label_time, latest.get(row.partition, row.label_time))
        keyed.append((matured, row.partition, row.offset, row))
    keyed.sort(key=lambda entry: entry[:3])
    return [entry[3] for entry in keyed]


def ranges_of(rows: list[Row], seen: Mapping[int, int] = MappingProxyType({})) -> dict[int, tuple[int, int]]:
    """partition -> [start, end) of the offsets among `rows`."""
    ranges = {partition: (end, end) for partition, end in seen.items()}
    by_partition = attrgetter("partition")
    for partition, group in groupby(sorted(rows, key=by_partition), by_partition):
        offsets = [row.offset for row in group]
        ranges[partition] = (min(offsets), max(offsets) + 1)
    return ranges
