"""Declared features become tensors (pure): one encoding, shared by scoring and training.

    class Flight(Event):
        id: Key
        scheduled: Annotated[EventTime, Cyclic(86_400)]
        carrier: Category
        hour: Annotated[float, Cyclic(24)]
        wind_gust: Number | None = None
        history: Annotated[list[float], Vector(8)]

        @feature
        def tail_wind(self) -> float | None: ...

Each marker adds its columns: Number, Flag and user functions one number, Cyclic a sine and a cosine, Vector `size`
numbers, Category one bucket. Number columns stand in this order: numbers and flags, vectors, cyclic pairs, user
functions; within each, as declared.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from inference.columns import CyclicColumns, Floats, HashedColumn, Indices, Scalars, VectorColumns, floats
from streams.events import DeclarationError, Event, markers

Derived: TypeAlias = list[list[float | None]]

MAX_BUCKETS = 1 << 24
_FUNCTION = "__tailrace_feature__"
F = TypeVar("F", bound=Callable[[Any], float | bool | None])


class NumberFeature(msgspec.Struct, frozen=True):
    """A number, as it is."""


class FlagFeature(msgspec.Struct, frozen=True):
    """A truth value: 1.0 or 0.0."""


class CategoryFeature(msgspec.Struct, frozen=True):
    """One of many values, hashed into buckets 1..buckets-1; 0 is missing. 7 and "7" are the same value."""

    buckets: int = 1024


class Cyclic(msgspec.Struct, frozen=True):
    """A value that comes round: its sine and cosine. On a time the period is in seconds (UTC)."""

    period: float


class Vector(msgspec.Struct, frozen=True):
    """A list of exactly `size` numbers."""

    size: int


Number: TypeAlias = Annotated[float, NumberFeature()]
Category: TypeAlias = Annotated[str | int, CategoryFeature()]
Flag: TypeAlias = Annotated[bool, FlagFeature()]
Marker: TypeAlias = NumberFeature | FlagFeature | CategoryFeature | Cyclic | Vector

_ALLOWED: dict[type, tuple[frozenset[Any], str]] = {
    NumberFeature: (frozenset((int, float)), "float or int"),
    FlagFeature: (frozenset((bool,)), "bool"),
    CategoryFeature: (frozenset((str, int)), "str or int"),
    Cyclic: (frozenset((int, float, datetime)), "float, int or EventTime"),
    Vector: (frozenset((list[float], list[int], list[float | None])), "list[float]"),
}


def feature(function: F) -> F:
    """Marks a method of an event class as a feature: float, bool, or None for missing (so are inf and NaN).

    It must be a pure function of the event. What it gave at scoring stands in `Prediction.derived`, to be looked at;
    where the example is learned from it is computed again, so that a changed function learns from its own values.
    """
    setattr(function, _FUNCTION, True)
    return function


class Inputs(NamedTuple):
    """What a model sees of n events: numbers [n, F], NaN: missing; categories [n, C], bucket indices, 0: missing."""

    numbers: Floats
    categories: Indices

    @property
    def rows(self) -> int:
        """How many events these are."""
        return len(self.numbers)

    def take(self, rows: slice | Indices | Sequence[int]) -> Inputs:
        """Some of the rows."""
        return Inputs(self.numbers[rows], self.categories[rows])

    @staticmethod
    def concat(parts: Sequence[Inputs]) -> Inputs:
        """At least one part, below one another."""
        return Inputs(
            np.concatenate([part.numbers for part in parts]), np.concatenate([part.categories for part in parts])
        )


class Features:
    """The features of an event class; made by `Features.of`.

    `numbers` and `categories` name the columns, `functions` those of user functions. `optional` tells which number
    columns may miss values, `buckets[i]` bounds category column i (0 <= index < buckets[i]). With an equal `digest`
    the same columns mean the same.
    """

    def __init__(self, event: type[Event], fields: Sequence[_Field], functions: Sequence[str]) -> None:
        self.event = event
        self._blocks: list[Scalars | VectorColumns | CyclicColumns] = []
        scalars = [f for f in fields if isinstance(f.marker, NumberFeature | FlagFeature)]
        if scalars:
            self._blocks.append(Scalars([f.name for f in scalars], [f.optional for f in scalars]))
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
        """Read the features of an event class. Raises DeclarationError naming the field and the fix."""
        hints = get_type_hints(event, include_extras=True)
        found = markers(event).items()
        fields = [
            _field(event, name, hints[name], mark)
            for name, marks in found
            for mark in marks
            if isinstance(mark, Marker)
        ]
        functions = _functions_of(event)
        if not fields and not functions:
            raise DeclarationError(
                f"{event.__name__} has no feature: declare a field as Number, Category or Flag, or a @feature method"
            )
        features = cls(event, fields, functions)
        names = (*features.numbers, *features.categories)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DeclarationError(
                f"{event.__name__} declares the features {twice} twice: keep one marker of each kind on a field"
            )
        return features

    def derive(self, events: Sequence[Any]) -> Derived | None:
        """The user functions' values, one list an event; None when there are none. Raises what they raise."""
        if not self._functions:
            return None
        return [[_finite(function(event)) for function in self._functions] for event in events]

    def encode(self, events: Sequence[Any], derived: Sequence[Sequence[float | None]] | None = None) -> Inputs:
        """Encode n events. Without `derived` the user functions are called.

        What float32 cannot hold is missing. Raises ValueError naming the field that does not fit.
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
                f"derived values do not fit: {len(events)} rows of {width} are due, for {list(self.functions)}"
            )
        return floats(chain.from_iterable(derived), len(events), width)


class _Field(NamedTuple):
    """One marker on one field."""

    name: str
    marker: Marker
    types: frozenset[Any]
    optional: bool


def _finite(value: float | bool | None) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _functions_of(event: type[Event]) -> list[str]:
    names = dict.fromkeys(name for base in reversed(event.__mro__) for name in vars(base))
    return [name for name in names if getattr(getattr(event, name, None), _FUNCTION, False)]


def _field(event: type[Event], name: str, hint: Any, marker: Marker) -> _Field:
    types = _types(hint)
    values = types - {type(None)}
    allowed, words = _ALLOWED[type(marker)]
    where = f"{event.__name__}.{name}"
    if not values <= allowed:
        raise DeclarationError(
            f"{where}: {type(marker).__name__} is for {words}, it is {_words(values)}: change type or marker"
        )
    if isinstance(marker, Cyclic) and not (math.isfinite(marker.period) and marker.period > 0):
        raise DeclarationError(f"{where}: Cyclic({marker.period}) needs a period above 0, such as Cyclic(24)")
    if isinstance(marker, Vector) and marker.size < 1:
        raise DeclarationError(f"{where}: Vector({marker.size}) needs the length of the list, such as Vector(8)")
    if isinstance(marker, CategoryFeature) and not 2 <= marker.buckets <= MAX_BUCKETS:
        raise DeclarationError(
            f"{where}: {marker.buckets} buckets; use 2 to {MAX_BUCKETS}, such as CategoryFeature(1024)"
        )
    return _Field(name, marker, values, type(None) in types)


def _types(hint: Any) -> frozenset[Any]:
    """The plain types of a hint: Annotated stripped, unions opened, literals as the types of their values."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _types(get_args(hint)[0])
    if origin is Literal:
        return frozenset(type(value) for value in get_args(hint))
    if origin is None or origin is list:
        return frozenset((hint,))
    return frozenset().union(*map(_types, get_args(hint)))


def _words(types: frozenset[Any]) -> str:
    return " | ".join(
        sorted(getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind) for kind in types)
    )
