"""A history that is read part by part, so that its beginning can be replayed while the rest is still being read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.history.parts import Arrival, FeatureDict, Part
from tailrace.declaration.task import Target
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.targets import targets_of

_FIRST_CAPACITY = 4_096  # events


@runtime_checkable
class Closeable(Protocol):
    """An iterator of parts that holds a process or a file."""

    def close(self) -> None:
        """Release the process or file."""


class PartialHistory:
    """A history of which the first `events` events have been read.

    A method that needs more events reads further parts. `times`, `inputs` and `targets` cover the events read so far
    and have the shapes of `arrays.Stream`. Any number of iterators of `arrivals` may be used at the same time.
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
        """Event times, shape [events]: unix seconds or row numbers."""
        return self._times[: self.events]

    @property
    def targets(self) -> NDArray[np.float32]:
        """Targets, shape [events] or [events, labels]; NaN for events whose label is not known yet."""
        return self._targets[: self.events]

    def target(self, event: int) -> Target:
        """Return the target of event number `event`."""
        (target,) = targets_of(self._targets[event : event + 1])
        return target

    @property
    def inputs(self) -> Inputs:
        """Model inputs of the events read so far."""
        return Inputs(self._numbers[: self.events], self._categories[: self.events])

    def arrivals(self) -> Iterator[Arrival]:
        """Iterate over all labels in the order in which they become known, reading parts as needed.

        The event of a yielded label and all events before its position have been read.
        """
        yielded = 0
        while yielded < len(self._arrivals) or self._read_part():
            for arrival in self._arrivals[yielded:]:  # a copy: the consumer may read further parts meanwhile
                yielded += 1
                yield arrival

    def time_at(self, position: int) -> float:
        """Return the time of event number `position`, counted from 0, or that of the last event if there are fewer."""
        while position >= self.events and self._read_part():
            pass
        return float(self._times[min(position, self.events - 1)])

    def first_event_at(self, time: float) -> int:
        """Return the number of the first event at `time` or later; the number of all events if there is none."""
        while (not self.events or self._times[self.events - 1] < time) and self._read_part():
            pass
        return int(np.searchsorted(self.times, time, "left"))

    def has_events(self) -> bool:
        """Return True if the history has at least one event."""
        while not self.events and self._read_part():
            pass
        return self.events > 0

    def count(self) -> int:
        """Read to the end and return the number of events."""
        while self._read_part():
            pass
        return self.events

    def close(self) -> None:
        """Stop reading, and end the process that reads the parts, if there is one."""
        if isinstance(self._parts, Closeable):
            self._parts.close()

    def _read_part(self) -> bool:
        """Append the next part; False at the end."""
        part = next(self._parts, None)
        if part is None:
            return False
        start, self.events = self.events, self.events + len(part.ids)
        self._times = extended(self._times, start, part.times)
        self._numbers = extended(self._numbers, start, part.inputs.numbers)
        self._categories = extended(self._categories, start, part.inputs.categories)
        unknown = np.full((len(part.ids), *self._targets.shape[1:]), np.nan, np.float32)
        self._targets = extended(self._targets, start, unknown)
        if part.targets:
            self._targets[[arrival.event for arrival in part.arrivals]] = part.targets
        self.ids += part.ids
        self.features += part.features
        self._arrivals += part.arrivals
        return True


def extended(array: NDArray[Any], used: int, rows: Any) -> NDArray[Any]:
    """Return the array with `rows` written after its first `used` rows.

    The array is changed in place if it has room. Otherwise it is copied into one of at least twice its size, so that
    appending takes constant time per row.
    """
    end = used + len(rows)
    if end > len(array):
        larger = np.empty((max(end, 2 * len(array), _FIRST_CAPACITY), *array.shape[1:]), array.dtype)
        larger[:used] = array[:used]
        array = larger
    array[used:end] = rows
    return array
