"""Event classes (pure): msgspec Structs whose annotations name the event's id and time.

    class Flight(Event):
        id: Key
        scheduled: EventTime
        ...

The JSON decoder is derived from the class, so the wire schema, the editor and mypy agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, TypeAlias, dataclass_transform, get_args, get_origin, get_type_hints

import msgspec

from tailrace.errors import DeclarationError

MILLISECONDS_FROM = 1e11  # a larger number is unix milliseconds: as seconds it would lie beyond the year 5100
_YEARS_1_TO_9999 = msgspec.Meta(ge=-62_135_596_800.0, lt=253_402_300_800_000.0)  # datetime's own range


class KeyField:
    """Marker of the field that identifies an event. Predictions, labels and examples are keyed by it."""


class TimeField:
    """Marker of the field that holds the time at which an event occurred."""


Key: TypeAlias = Annotated[str, KeyField(), msgspec.Meta(min_length=1, max_length=1024)]
"""The event's id: a non-empty string that is unique among all events."""

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


class EventSchema(msgspec.Struct, frozen=True):
    """An event class and the names of its id field and of its time field (None: it declares none)."""

    event: type[Event]
    id: str
    time: str | None

    def times(self, events: Sequence[Event], timestamps_ms: Sequence[int]) -> list[float]:
        """Event times in unix seconds; the record's timestamp where the event has none."""
        if self.time is None:
            return [ms / 1000.0 for ms in timestamps_ms]
        times = map(attrgetter(self.time), events)
        return [
            ms / 1000.0 if time is None else to_seconds(time) for time, ms in zip(times, timestamps_ms, strict=True)
        ]

    def ids(self, events: Sequence[Event]) -> list[str]:
        """The ids of the events, in the same order."""
        name = self.id
        return [getattr(event, name) for event in events]


def to_seconds(instant: Instant) -> float:
    """Convert an instant in any accepted form to unix seconds."""
    if isinstance(instant, datetime):
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    return instant / 1000.0 if instant > MILLISECONDS_FROM else float(instant)


def schema_of(event: type[Event]) -> EventSchema:
    """Find the id and time fields of an event class.

    Raises DeclarationError unless the class has exactly one Key and at most one EventTime.
    """
    if not (isinstance(event, type) and issubclass(event, Event)):
        name = getattr(event, "__name__", repr(event))
        raise DeclarationError(f"{name} is not a subclass of tailrace.Event: declare `class {name}(Event): ...`")
    marks_by_field = markers(event)
    keys = [name for name, marks in marks_by_field.items() if any(isinstance(mark, KeyField) for mark in marks)]
    times = [name for name, marks in marks_by_field.items() if any(isinstance(mark, TimeField) for mark in marks)]
    if len(keys) != 1:
        raise DeclarationError(f"{event.__name__} needs exactly one field of type Key, it has {len(keys)}: {keys}")
    if len(times) > 1:
        raise DeclarationError(
            f"{event.__name__} has {len(times)} EventTime fields {times}: "
            "keep one and declare the others as plain fields"
        )
    return EventSchema(event, keys[0], times[0] if times else None)


def markers(event: type[Event]) -> dict[str, list[Any]]:
    """Map each field name to the Annotated metadata of its type, union members included, in declared order."""
    hints = get_type_hints(event, include_extras=True)
    return {name: _metadata(hints[name]) for name in event.__struct_fields__}


def _metadata(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return [*_metadata(inner), *marks]
    return [mark for argument in get_args(hint) for mark in _metadata(argument)]


def _names(classes: tuple[type, ...]) -> str:
    return ", ".join(base.__name__ for base in classes)
