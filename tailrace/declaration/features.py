"""Declared features (pure): the markers that make a field of an event class an input of the model.

class Flight(Event):
    id: Key
    scheduled: Annotated[EventTime, Cyclic(86_400)]
    carrier: Category
    hour: Annotated[float, Cyclic(24)]
    wind_gust: Number | None = None
    history: Annotated[list[float], Vector(8)]

    @feature
    def tail_wind(self) -> float | None: ...
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from tailrace.declaration.event import Event, markers
from tailrace.errors import DeclarationError

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


class FeatureField(NamedTuple):
    """One marker on one field of an event class: the field's name, types, and whether it may be missing."""

    name: str
    marker: Marker
    types: frozenset[Any]
    optional: bool

    def columns(self) -> list[str]:
        """Names of the columns that the field becomes."""
        if isinstance(self.marker, Vector):
            return [f"{self.name}.{i}" for i in range(self.marker.size)]
        if isinstance(self.marker, Cyclic):
            return [f"{self.name}.{wave}{self.marker.period:g}" for wave in ("sin", "cos")]
        return [self.name]


def declared_features(event: type[Event]) -> tuple[list[FeatureField], list[str]]:
    """The marked fields of an event class and the names of its @feature methods, in declared order.

    Raises DeclarationError naming the field and the fix.
    """
    hints = get_type_hints(event, include_extras=True)
    fields = [
        _field(event, name, hints[name], mark)
        for name, marks in markers(event).items()
        for mark in marks
        if isinstance(mark, Marker)
    ]
    functions = _functions_of(event)
    if not fields and not functions:
        raise DeclarationError(
            f"{event.__name__} has no feature: declare a field as Number, Category or Flag, or a @feature method"
        )
    names = [*chain.from_iterable(field.columns() for field in fields), *functions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeclarationError(
            f"{event.__name__} declares the features {twice} twice: keep one marker of each kind on a field"
        )
    return fields, functions


def _functions_of(event: type[Event]) -> list[str]:
    names = dict.fromkeys(name for base in reversed(event.__mro__) for name in vars(base))
    return [name for name in names if getattr(getattr(event, name, None), _FUNCTION, False)]


def _field(event: type[Event], name: str, hint: Any, marker: Marker) -> FeatureField:
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
    return FeatureField(name, marker, values, type(None) in types)


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
