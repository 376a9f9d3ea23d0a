"""Events as a user declares them (pure): a msgspec Struct whose annotations name the id and the time.

    class Flight(Event, kw_only=True):
        id: Key
        scheduled: EventTime
        ...

The decoder is derived from the class, so the wire schema, the editor's and mypy's are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from tailrace.errors import DeclarationError

MILLISECONDS_FROM = 1e11  # a number above this is unix milliseconds: as seconds it would lie beyond the year 5100
_YEARS_1_TO_9999 = msgspec.Meta(ge=-62_135_596_800.0, lt=253_402_300_800_000.0)  # datetime's own range


class KeyField:
    """Marks the field that identifies an event; predictions, labels and examples are keyed by it."""


class TimeField:
    """Marks the field that tells when an event happened."""


Key: TypeAlias = Annotated[str, KeyField(), msgspec.Meta(min_length=1, max_length=1024)]
"""The event's id: a non-empty string that no other event ever has."""

Instant: TypeAlias = datetime | Annotated[float, _YEARS_1_TO_9999]
"""ISO 8601 text, unix seconds, or unix milliseconds (numbers above 1e11), of the years 1 to 9999. A time without an
offset is taken as UTC."""

EventTime: TypeAlias = Annotated[Instant, TimeField()]
"""When the event happened. Without such a field, or where it is optional and null, the record's own timestamp is
used."""


class Event(msgspec.Struct, gc=False):
    """Base class of declared events. Fields without a marker are carried along but are no features."""


class EventSchema(msgspec.Struct, frozen=True):
    """What the pipeline needs to know of an event class: its type and which fields are id and time."""

    event: type[Event]
    id: str
    time: str | None

    def times(self, events: Sequence[Event], timestamps_ms: Sequence[int]) -> list[float]:
        """The event times in unix seconds; where none is declared, or given, the records' timestamps."""
        if self.time is None:
            return [ms / 1000.0 for ms in timestamps_ms]
        times = map(attrgetter(self.time), events)
        return [
            ms / 1000.0 if time is None else to_seconds(time) for time, ms in zip(times, timestamps_ms, strict=True)
        ]

    def ids(self, events: Sequence[Event]) -> list[str]:
        """The event ids."""
        name = self.id
        return [getattr(event, name) for event in events]


def to_seconds(instant: Instant) -> float:
    """Unix seconds of an instant in any of the accepted forms."""
    if isinstance(instant, datetime):
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    return instant / 1000.0 if instant > MILLISECONDS_FROM else float(instant)


def schema_of(event: type[Event]) -> EventSchema:
    """Read the markers of an event class. Raises DeclarationError when there is not exactly one Key and at most one
    EventTime."""
    if not (isinstance(event, type) and issubclass(event, Event)):
        name = getattr(event, "__name__", repr(event))
        raise DeclarationError(f"{name} is not a subclass of tailrace.Event: declare `class {name}(Event): ...`")
    found = markers(event)
    keys = [name for name, marks in found.items() if any(isinstance(m, KeyField) for m in marks)]
    times = [name for name, marks in found.items() if any(isinstance(m, TimeField) for m in marks)]
    if len(keys) != 1:
        raise DeclarationError(f"{event.__name__} needs exactly one field of type Key, it has {len(keys)}: {keys}")
    if len(times) > 1:
        raise DeclarationError(
            f"{event.__name__} has {len(times)} EventTime fields {times}: keep one, the others as plain fields"
        )
    return EventSchema(event, keys[0], times[0] if times else None)


def markers(event: type[Event]) -> dict[str, list[Any]]:
    """Field name -> the Annotated metadata of its type, members of a union included, in declared order."""
    hints = get_type_hints(event, include_extras=True)
    return {name: _metadata(hints[name]) for name in event.__struct_fields__}


def _metadata(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return [*_metadata(inner), *marks]
    return [mark for argument in get_args(hint) for mark in _metadata(argument)]
