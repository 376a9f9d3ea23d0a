"""Declared features (pure): the markers that make a field of an event class an input of the model.

class Flight(Event):
    id: Key  # no input
    scheduled: Annotated[EventTime, Cyclic(86_400)]  # an input because of Cyclic
    carrier: Category
    tail_number: Annotated[Category, Buckets(16_384)]
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

from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.event import Event, markers
from tailrace.errors import DeclarationError

MAX_BUCKETS = 1 << 24
_FUNCTION = "__tailrace_feature__"
F = TypeVar("F", bound=Callable[[Any], float | bool | None])


class NumberFeature(msgspec.Struct, frozen=True):
    """Marker of a number that the model takes unchanged."""


class FlagFeature(msgspec.Struct, frozen=True):
    """Marker of a truth value, encoded as 1.0 or 0.0."""


@with_field_docs
class CategoryFeature(msgspec.Struct, frozen=True):
    """Marker of a categorical value, encoded by its hash. 7 and "7" are the same value."""

    buckets: int = 1024
    """Number of hash buckets, 2 to 2**24. Values use 1 to buckets - 1; bucket 0 is a missing value."""


@with_field_docs
class Buckets(msgspec.Struct, frozen=True):
    """Number of hash buckets of a category: `Annotated[Category, Buckets(16_384)]`, also on str, int and optionals.

    Choose several times the number of distinct values: values that share a bucket look the same to the model.
    """

    count: int
    """Number of buckets, 2 to 2**24; 1,024 without this marker."""


@with_field_docs
class Cyclic(msgspec.Struct, frozen=True):
    """A periodic value, encoded as sine and cosine: `Annotated[float, Cyclic(24)]`."""

    period: float
    """Period in the unit of the value, > 0. For a time, the period in seconds (UTC)."""


@with_field_docs
class Vector(msgspec.Struct, frozen=True):
    """A list of numbers of fixed length: `Annotated[list[float], Vector(8)]`."""

    size: int
    """Length of the list, >= 1."""


Number: TypeAlias = Annotated[float, NumberFeature()]
"""A number that the model takes unchanged."""
Category: TypeAlias = Annotated[str | int, CategoryFeature()]
"""One of many values, encoded by its hash into 1,024 buckets; `Annotated[Category, Buckets(n)]` changes the number."""
Flag: TypeAlias = Annotated[bool, FlagFeature()]
"""A truth value."""
Marker: TypeAlias = NumberFeature | FlagFeature | CategoryFeature | Cyclic | Vector

_ALLOWED: dict[type, tuple[frozenset[Any], str]] = {
    NumberFeature: (frozenset((int, float)), "float or int"),
    FlagFeature: (frozenset((bool,)), "bool"),
    CategoryFeature: (frozenset((str, int)), "str or int"),
    Cyclic: (frozenset((int, float, datetime)), "float, int or EventTime"),
    Vector: (frozenset((list[float], list[int], list[float | None])), "list[float]"),
}


def feature(function: F) -> F:
    """Mark a method of an event class as a feature. It returns a float, a bool, or None (also inf, NaN) for missing.

    The method must be a pure function of the event. Its value at scoring is stored in `Prediction.derived` for
    inspection. Training computes it again, so that a changed method learns from its own values.
    """
    setattr(function, _FUNCTION, True)
    return function


class FeatureField(NamedTuple):
    """One marker on one field of an event class. `types`: the value types; `optional`: whether it may be missing."""

    name: str
    marker: Marker
    types: frozenset[Any]
    optional: bool

    def columns(self) -> list[str]:
        """Names of the columns that the field is encoded to."""
        if isinstance(self.marker, Vector):
            return [f"{self.name}.{i}" for i in range(self.marker.size)]
        if isinstance(self.marker, Cyclic):
            return [f"{self.name}.{wave}{self.marker.period:g}" for wave in ("sin", "cos")]
        return [self.name]


def declared_features(event: type[Event]) -> tuple[list[FeatureField], list[str]]:
    """The marked fields of an event class and the names of its @feature methods, in declared order.

    Raises DeclarationError, which names the field and the fix.
    """
    hints = get_type_hints(event, include_extras=True)
    fields = [
        _field(event, name, hints[name], mark)
        for name, marks in markers(event).items()
        for mark in _with_buckets(marks)
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


def _with_buckets(marks: list[Any]) -> list[Marker]:
    """The feature markers among `marks`; Buckets sets the count of a category, or makes the field one."""
    features: list[Marker] = [mark for mark in marks if isinstance(mark, Marker)]
    sizes = [CategoryFeature(mark.count) for mark in marks if isinstance(mark, Buckets)]
    return features if not sizes else [*(mark for mark in features if not isinstance(mark, CategoryFeature)), *sizes]


def _functions_of(event: type[Event]) -> list[str]:
    names = dict.fromkeys(name for base in reversed(event.__mro__) for name in vars(base))
    return [name for name in names if getattr(getattr(event, name, None), _FUNCTION, False)]


def _field(event: type[Event], name: str, hint: Any, marker: Marker) -> FeatureField:
    types = _types(hint)
    values = types - {type(None)}
    allowed, description = _ALLOWED[type(marker)]
    where = f"{event.__name__}.{name}"
    if not values <= allowed:
        raise DeclarationError(
            f"{where}: {type(marker).__name__} is for {description}, it is {_words(values)}: change type or marker"
        )
    if isinstance(marker, Cyclic) and not (math.isfinite(marker.period) and marker.period > 0):
        raise DeclarationError(f"{where}: Cyclic({marker.period}) needs a period above 0, such as Cyclic(24)")
    if isinstance(marker, Vector) and marker.size < 1:
        raise DeclarationError(f"{where}: Vector({marker.size}) needs the length of the list, such as Vector(8)")
    if isinstance(marker, CategoryFeature) and not 2 <= marker.buckets <= MAX_BUCKETS:
        raise DeclarationError(f"{where}: {marker.buckets} buckets; use 2 to {MAX_BUCKETS}, such as Buckets(1024)")
    return FeatureField(name, marker, values, type(None) in types)


def _types(hint: Any) -> frozenset[Any]:
    """The plain types of a hint: Annotated removed, unions expanded, literals as the types of their values."""
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
