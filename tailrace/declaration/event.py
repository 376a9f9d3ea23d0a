"""Event classes (pure): msgspec Structs whose annotations name the event's id and time.

    class Flight(Event):
        id: Key
        scheduled: EventTime
        ...

The JSON decoder is derived from the class, so the wire schema, the editor and mypy agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, Protocol, TypeAlias, Union, dataclass_transform, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from tailrace.errors import DeclarationError

MILLISECONDS_FROM = 1e11  # a larger number is unix milliseconds: as seconds it would lie beyond the year 5100
_YEARS_1_TO_9999 = msgspec.Meta(ge=-62_135_596_800.0, lt=253_402_300_800_000.0)  # datetime's own range


class KeyField:
    """Marker of the field that identifies an event. Predictions, labels and examples are keyed by it."""


class TimeField:
    """Marker of the field that holds the time at which an event occurred."""


MAX_ID = 1_024
"""Longest id, in characters: predictions, labels and examples repeat it."""
_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
_Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

Key: TypeAlias = Annotated[_Text | _Whole, KeyField()]
"""The event's id: a non-empty text or a whole number of 64 bits that is unique among all events. 7 and "7" are the same
id; true, 7.0 and null are none."""

UuidKey: TypeAlias = Annotated[UUID, KeyField()]
"""The event's id as a UUID, in any spelling; it is written in lower case with hyphens."""

Instant: TypeAlias = datetime | Annotated[float, _YEARS_1_TO_9999]
"""ISO 8601 text, unix seconds, or unix milliseconds (numbers above 1e11), in the years 1 to 9999. A time without an
offset is read as UTC."""

EventTime: TypeAlias = Annotated[Instant, TimeField()]
"""The time at which the event occurred. If an event class declares none, or an optional one is null, the timestamp of
the log record is used."""


class EventMeta(msgspec.StructMeta):
    """Metaclass of event classes: makes keyword-only fields the default, in subclasses too.

    A field without a default may then follow one with a default. msgspec does not inherit `kw_only`, therefore it is
    set for each class.
    """

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> EventMeta:
        """Create the class. Warns if it repeats the default, which older versions required."""
        if config.get("kw_only"):
            warnings.warn(
                f"kw_only=True is the default of event classes: write `class {name}({_names(bases)})`",
                DeprecationWarning,
                stacklevel=2,
            )
        return super().__new__(mcls, name, bases, namespace, **{"kw_only": True, **config})


# On the class and not on its metaclass: there, type checkers would use the one of msgspec's own metaclass.
@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=EventMeta, gc=False):
    """Base class of declared events. All fields are keyword-only; one without a default may follow one with a default.

    Fields without a feature marker are stored with the prediction but are not inputs of the model.
    """


class Placed(Protocol):
    """A record, as far as its place in the log is concerned."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


class EventSchema(msgspec.Struct, frozen=True):
    """An event class, the fields of its id, and the name of its time field (None: it declares none).

    `keys` maps the names of the id fields, in declared order, to their annotations. With several fields the id is
    their values, joined by ":"; without a field it is the record's place, topic-partition-offset.
    """

    event: type[Event]
    keys: Mapping[str, Any]
    time: str | None

    def times(self, events: Sequence[Event], timestamps_ms: Sequence[int]) -> list[float]:
        """Event times in unix seconds; the record's timestamp where the event has none."""
        if self.time is None:
            return [ms / 1000.0 for ms in timestamps_ms]
        times = map(attrgetter(self.time), events)
        return [
            ms / 1000.0 if time is None else to_seconds(time) for time, ms in zip(times, timestamps_ms, strict=True)
        ]

    def ids(self, events: Sequence[Event], records: Sequence[Placed]) -> list[str]:
        """The ids of the events as text, in the same order; `records[i]` is the record of `events[i]`."""
        if len(self.keys) == 1:
            return list(map(str, map(attrgetter(*self.keys), events)))
        if self.keys:
            return list(map(joined_id, map(attrgetter(*self.keys), events)))
        return [f"{record.topic}-{record.partition}-{record.offset}" for record in records]

    @property
    def label_ids(self) -> dict[str, Any]:
        """The id fields of label records, with their types: those of several keys, else one field "id"."""
        return dict(self.keys) if len(self.keys) > 1 else {"id": next(iter(self.keys.values()), Key)}

    def id_texts(self, values: Sequence[object]) -> list[str]:
        """Return the texts of the values of an id: of a UUID in any spelling, that with hyphens in lower case.

        Raises ValueError for a text that is no UUID where one is due.
        """
        kinds = list(self.keys.values()) or [Key]
        return [
            str(UUID(str(value))) if UUID in _types(kind) else str(value)
            for value, kind in zip(values, kinds, strict=True)
        ]


def joined_id(values: Iterable[object]) -> str:
    """Return the id of these values: the text of a single one, else all joined by ":".

    In several texts each ":" and each backslash is escaped by a backslash.
    """
    texts = [str(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return ":".join(text.replace("\\", "\\\\").replace(":", "\\:") for text in texts)


def to_seconds(instant: Instant) -> float:
    """Convert an instant in any accepted form to unix seconds."""
    if isinstance(instant, datetime):
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    return instant / 1000.0 if instant > MILLISECONDS_FROM else float(instant)


def schema_of(event: type[Event]) -> EventSchema:
    """Find the id and time fields of an event class.

    Raises DeclarationError for an id field of another type than text, whole number or UUID, and for two EventTimes.
    """
    if not (isinstance(event, type) and issubclass(event, Event)):
        name = getattr(event, "__name__", repr(event))
        raise DeclarationError(f"{name} is not a subclass of tailrace.Event: declare `class {name}(Event): ...`")
    marks_by_field = markers(event)
    keys = [name for name, marks in marks_by_field.items() if any(isinstance(mark, KeyField) for mark in marks)]
    times = [name for name, marks in marks_by_field.items() if any(isinstance(mark, TimeField) for mark in marks)]
    if len(times) > 1:
        raise DeclarationError(
            f"{event.__name__} has {len(times)} EventTime fields {times}: "
            "keep one and declare the others as plain fields"
        )
    hints = get_type_hints(event, include_extras=True)
    for key in keys:
        kinds = _types(hints[key])
        if (odd := kinds - {str, int, UUID}) or not kinds & {str, UUID}:
            names = ", ".join(sorted(getattr(kind, "__name__", str(kind)) for kind in odd or kinds))
            raise DeclarationError(
                f"{event.__name__}.{key} may be {names}: an id is a text or a whole number (`Key`), or a UUID "
                "(`UuidKey`)"
            )
    return EventSchema(event, {key: hints[key] for key in keys}, times[0] if times else None)


def markers(event: type[Event]) -> dict[str, list[Any]]:
    """Map each field name to the Annotated metadata of its type, union members included, in declared order."""
    hints = get_type_hints(event, include_extras=True)
    return {name: _metadata(hints[name]) for name in event.__struct_fields__}


def _types(hint: Any) -> set[Any]:
    """Return the types of a union, without their Annotated metadata."""
    if get_origin(hint) is Annotated:
        return _types(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return set().union(*map(_types, get_args(hint)))
    return {hint}


def _metadata(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return [*_metadata(inner), *marks]
    return [mark for argument in get_args(hint) for mark in _metadata(argument)]


def _names(classes: tuple[type, ...]) -> str:
    return ", ".join(base.__name__ for base in classes)
