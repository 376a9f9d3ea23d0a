"""Encoding of events as arrays (pure), shared by scoring and training.

Each marker adds columns: Number, Flag and a user function one number, Cyclic a sine and a cosine, Vector `size`
numbers, Category one bucket index. Number columns have this order: numbers and flags, vectors, cyclic pairs, user
functions; within each group the declared order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from tailrace.declaration.event import Event
from tailrace.declaration.features import (
    CategoryFeature,
    Cyclic,
    FeatureField,
    FlagFeature,
    NumberFeature,
    Vector,
    declared_features,
)
from tailrace.inference.models.columns import (
    CyclicColumns,
    Floats,
    Indices,
    ScalarColumns,
    VectorColumns,
    floats,
)
from tailrace.inference.models.hashed_column import HashedColumn

Derived: TypeAlias = list[list[float | None]]
"""Values of the user functions: one list per event, one value per function; None: missing."""


class Inputs(NamedTuple):
    """Model inputs of n events.

    `numbers` [n, F] float32 (NaN: missing); `categories` [n, C] bucket indices (0: missing).
    """

    numbers: Floats
    categories: Indices

    @property
    def rows(self) -> int:
        """Number of events n."""
        return len(self.numbers)

    def take(self, rows: slice | Indices | Sequence[int]) -> Inputs:
        """Return the inputs of the selected rows."""
        return Inputs(self.numbers[rows], self.categories[rows])

    @staticmethod
    def concat(parts: Sequence[Inputs]) -> Inputs:
        """Concatenate the rows of at least one part."""
        return Inputs(
            np.concatenate([part.numbers for part in parts]), np.concatenate([part.categories for part in parts])
        )


class Features:
    """Features of an event class; made by `Features.of`.

    `numbers` and `categories` are the names of the columns, `functions` the names of the user functions. `optional`
    marks the number columns that may have missing values; `buckets[i]` bounds category column i
    (0 <= index < buckets[i]). Features of equal `digest` have the same columns with the same meaning.
    """

    def __init__(self, event: type[Event], fields: Sequence[FeatureField], functions: Sequence[str]) -> None:
        self.event = event
        self._blocks: list[ScalarColumns | VectorColumns | CyclicColumns] = []
        scalars = [f for f in fields if isinstance(f.marker, NumberFeature | FlagFeature)]
        if scalars:
            self._blocks.append(ScalarColumns([f.name for f in scalars], [f.optional for f in scalars]))
        self._blocks += [
            VectorColumns(f.name, f.marker.size, f.optional) for f in fields if isinstance(f.marker, Vector)
        ]
        self._blocks += [
            CyclicColumns(f.name, f.marker.period, f.optional, datetime in f.types)
            for f in fields
            if isinstance(f.marker, Cyclic)
        ]
        self._categories = [
            HashedColumn(f.name, f.marker.buckets) for f in fields if isinstance(f.marker, CategoryFeature)
        ]
        self._functions = [getattr(event, name) for name in functions]
        self.functions = tuple(functions)
        self.numbers = (*chain.from_iterable(block.columns for block in self._blocks), *functions)
        self.optional = (*chain.from_iterable(block.optional for block in self._blocks), *(True for _ in functions))
        self.categories = tuple(column.name for column in self._categories)
        self.buckets = tuple(column.buckets for column in self._categories)
        described = [(f.name, type(f.marker).__name__, *msgspec.structs.astuple(f.marker)) for f in fields]
        self.digest = hashlib.sha256(msgspec.json.encode((described, functions))).hexdigest()

    @classmethod
    def of(cls, event: type[Event]) -> Features:
        """Read the features of an event class. Raises DeclarationError, which names the field and the fix."""
        return cls(event, *declared_features(event))

    def derive(self, events: Sequence[Any]) -> Derived | None:
        """Call the user functions on each event; None without user functions. Raises any error of theirs."""
        if not self._functions:
            return None
        return [[_finite(function(event)) for function in self._functions] for event in events]

    def encode(self, events: Sequence[Any], derived: Sequence[Sequence[float | None]] | None = None) -> Inputs:
        """Encode n events; `derived` are the values of the user functions, which are called if it is None.

        A number that float32 cannot hold is encoded as missing. Raises ValueError, which names the field that does not
        fit.
        """
        blocks = [block.encode(events) for block in self._blocks]
        if self._functions:
            blocks.append(self._derived(events, self.derive(events) if derived is None else derived))
        if not blocks:
            blocks.append(np.empty((len(events), 0), np.float32))
        numbers = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
        numbers[~np.isfinite(numbers)] = np.nan
        categories = np.empty((len(events), len(self._categories)), np.int64)
        for i, column in enumerate(self._categories):
            categories[:, i] = column.encode(events)
        return Inputs(numbers, categories)

    def _derived(self, events: Sequence[Any], derived: Sequence[Sequence[float | None]] | None) -> Floats:
        width = len(self._functions)
        if derived is None or len(derived) != len(events) or any(len(row) != width for row in derived):
            raise ValueError(
                f"derived values do not fit: expected {len(events)} rows of {width}, for {list(self.functions)}"
            )
        return floats(chain.from_iterable(derived), len(events), width)


def _finite(value: float | bool | None) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
