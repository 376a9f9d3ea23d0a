"""Encoders of event fields as number columns (pure): each class encodes one kind of field of n events at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tailrace.declaration.event import to_seconds

Floats: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.int64]


class ScalarColumns:
    """All numbers and flags of an event, one column each, encoded in one pass."""

    def __init__(self, names: list[str], optional: list[bool]) -> None:
        self.columns, self.optional = names, optional
        self._get = attrgetter(*names)

    def encode(self, events: Sequence[Any]) -> Floats:
        values: Any = map(self._get, events)
        return floats(values if len(self.columns) == 1 else chain.from_iterable(values), len(events), len(self.columns))


class VectorColumns:
    """A list of `size` numbers, one column each; None is a row of missing values."""

    def __init__(self, name: str, size: int, optional: bool) -> None:
        self.name = name
        self.columns, self.optional = [f"{name}.{i}" for i in range(size)], [optional] * size
        self._missing = [math.nan] * size
        self._get = attrgetter(name)

    def encode(self, events: Sequence[Any]) -> Floats:
        size = len(self.columns)
        rows = [self._missing if row is None else row for row in map(self._get, events)]
        wrong = set(map(len, rows)) - {size}
        if wrong:
            raise ValueError(f"{self.name}: expected {size} numbers, got {min(wrong)}")
        return floats(chain.from_iterable(rows), len(rows), size)


class CyclicColumns:
    """Sine and cosine of a value with this `period`; the period of a time is in seconds (UTC)."""

    def __init__(self, name: str, period: float, optional: bool, is_time: bool) -> None:
        self.columns = [f"{name}.sin{period:g}", f"{name}.cos{period:g}"]
        self.optional = [optional] * 2
        self._get = attrgetter(name)
        self._radians_per_unit = 2 * math.pi / period
        self._is_time = is_time

    def encode(self, events: Sequence[Any]) -> Floats:
        values: Any = map(self._get, events)
        if self._is_time:
            values = (None if value is None else to_seconds(value) for value in values)
        angles = np.fromiter(values, np.float64, len(events)) * self._radians_per_unit
        return np.stack((np.sin(angles), np.cos(angles)), axis=1).astype(np.float32)


def floats(values: Iterable[float | None], rows: int, width: int) -> Floats:
    """Convert values, row by row, into a float32 array [rows, width].

    None becomes NaN; a number that float32 cannot hold becomes infinite.
    """
    with np.errstate(over="ignore"):
        return np.fromiter(values, np.float32, rows * width).reshape(rows, width)
