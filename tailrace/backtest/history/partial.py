"""A history as it becomes known, part by part: it can be replayed while the rest of it is still being read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.history.parts import Arrival, FeatureDict, Part
from tailrace.declaration.task import Target
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.targets import targets_of

_ROOM = 4_096  # events at first


@runtime_checkable
class Closeable(Protocol):
    """An iterator of parts that holds a process or a file."""

    def close(self) -> None:
        """Free it."""


class PartialHistory:
    """A history that takes its next part whenever more of it is asked for than is known.

    `events` are known, with `times`, `inputs` and `targets` as in `arrays.Stream`. Any number of
    readers may follow `arrivals`.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        optional: Sequence[bool],
        buckets: Sequence[int],
        target_shape: tuple[int, ...] = (),
    ) -> None:
        self.events = 0
        self.ids: list[str] = []
        self.features: list[FeatureDict] = []
        self.optional, self.buckets = tuple(optional), tuple(buckets)
        self._parts = iter(parts)
        self._arrivals: list[Arrival] = []
        self._times, self._targets = np.empty(0), np.empty((0, *target_shape), np.float32)
        self._numbers = np.empty((0, len(optional)), np.float32)
        self._categories = np.empty((0, len(buckets)), np.int64)

    @property
    def times(self) -> NDArray[np.float64]:
        """Of the known events."""
        return self._times[: self.events]

    @property
    def targets(self) -> NDArray[np.float32]:
        """Of the known events, as in `inference.models.targets`: NaN where no label has become known."""
        return self._targets[: self.events]

    def target(self, event: int) -> Target:
        """Target of one event."""
        (target,) = targets_of(self._targets[event : event + 1])
        return target

    @property
    def inputs(self) -> Inputs:
        """What a model sees of the known events."""
        return Inputs(self._numbers[: self.events], self._categories[: self.events])

    def arrivals(self) -> Iterator[Arrival]:
        """Every label in the order in which they became known; the events before it are then known too."""
        told = 0
        while told < len(self._arrivals) or self._more():
            for arrival in self._arrivals[told:]:  # there may be more of them by the time that these are told
                told += 1
                yield arrival

    def at(self, position: int) -> float:
        """When event number `position` happens; where there is none, when the last one does."""
        while position >= self.events and self._more():
            pass
        return float(self._times[min(position, self.events - 1)])

    def first_at(self, time: float) -> int:
        """The first event that happens at this time or later; how many there are where none does."""
        while (not self.events or self._times[self.events - 1] < time) and self._more():
            pass
        return int(np.searchsorted(self.times, time, "left"))

    def some(self) -> bool:
        """Whether there is any event."""
        while not self.events and self._more():
            pass
        return self.events > 0

    def count(self) -> int:
        """How many events there are in all."""
        while self._more():
            pass
        return self.events

    def close(self) -> None:
        """Stop reading: end the process that reads the parts, if there is one."""
        if isinstance(self._parts, Closeable):
            self._parts.close()

    def _more(self) -> bool:
        part = next(self._parts, None)
        if part is None:
            return False
        start, self.events = self.events, self.events + len(part.ids)
        self._times = extended(self._times, start, part.times)
        self._numbers = extended(self._numbers, start, part.inputs.numbers)
        self._categories = extended(self._categories, start, part.inputs.categories)
        self._targets = extended(
            self._targets, start, np.full((len(part.ids), *self._targets.shape[1:]), np.nan, np.float32)
        )
        if part.targets:
            self._targets[[arrival.event for arrival in part.arrivals]] = part.targets
        self.ids += part.ids
        self.features += part.features
        self._arrivals += part.arrivals
        return True


def extended(array: NDArray[Any], used: int, more: Any) -> NDArray[Any]:
    """The array with more behind the rows that are used, moved to where there is room if need be."""
    end = used + len(more)
    if end > len(array):
        larger = np.empty((max(end, 2 * len(array), _ROOM), *array.shape[1:]), array.dtype)
        larger[:used] = array[:used]
        array = larger
    array[used:end] = more
    return array
