"""JSON codecs (pure). A record that cannot be decoded becomes a `Malformed` value, not an exception for its batch.

A whole batch is decoded in one call, as JSON lines; if that fails, each record is decoded on its own. Joining the
records is safe because no value may hold a newline and every boundary must read `}\\n{`: then no record can close or
open a structure of its neighbour, and the number of values equals the number of records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from tailrace.declaration.event import Event, EventSchema
from tailrace.streams.log.future_times import latest_allowed_time
from tailrace.streams.log.records import Record

T = TypeVar("T")

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions of decoding bytes that may hold anything: another type, invalid JSON or UTF-8, too deep nesting."""
MAX_BYTES = 1_000_000
DEAD_LETTER_REASONS = (
    "null", "too_large", "not_utf8", "too_deep", "invalid_json", "wrong_shape", "future_time",  # any record
    "features", "model", "non_finite_score", "unknown_label", "unfit",  # an event; a label; an example
    "not_processed", "fatal",  # a record that makes a role fail, or die, when it is processed alone
)  # fmt: skip
"""Values of `Malformed.reason`."""


class Malformed(NamedTuple):
    """A record that cannot be used. `reason` is one of DEAD_LETTER_REASONS (a metric label); `detail` explains it."""

    record: Record
    reason: str
    detail: str


class Decoded(NamedTuple, Generic[T]):
    """Result of decoding: `items[i]` comes from `records[i]`; `malformed` holds the other records."""

    items: list[T]
    records: Sequence[Record]
    malformed: list[Malformed]


class Codec(Generic[T]):
    """JSON decoder for one msgspec type."""

    def __init__(self, kind: type[T], max_bytes: int = MAX_BYTES) -> None:
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind)
        self._max_bytes = max_bytes

    def decode(self, records: Sequence[Record]) -> Decoded[T]:
        """Decode a batch, in its order."""
        items = self._decode_joined([record.value for record in records])
        if items is not None:
            return Decoded(items, records, [])
        return self._decode_each(records)

    def _decode_joined(self, values: list[bytes | None]) -> list[T] | None:
        try:
            joined = b"\n".join(values)  # type: ignore[arg-type]  # a None raises TypeError
        except TypeError:
            return None
        boundaries = len(values) - 1
        if len(joined) > self._max_bytes and max(map(len, values), default=0) > self._max_bytes:  # type: ignore[arg-type]
            return None
        if joined.count(b"\n") != boundaries or joined.count(b"}\n{") != boundaries or joined[:1] != b"{":
            return None
        try:
            items = self._decoder.decode_lines(joined)
        except UNDECODABLE:
            return None
        return items if len(items) == len(values) else None

    def _decode_each(self, records: Sequence[Record]) -> Decoded[T]:
        items: list[T] = []
        kept: list[Record] = []
        malformed: list[Malformed] = []
        for record in records:
            try:
                items.append(self._decode_one(record.value))
                kept.append(record)
            except _Bad as bad:
                malformed.append(Malformed(record, bad.reason, bad.detail))
        return Decoded(items, kept, malformed)

    def _decode_one(self, value: bytes | None) -> T:
        if value is None:
            raise _Bad("null", "the value is null (a tombstone)")
        if len(value) > self._max_bytes:
            raise _Bad("too_large", f"{len(value)} bytes, the limit is {self._max_bytes}")
        try:
            return self._decoder.decode(value)
        except msgspec.ValidationError as error:
            raise _Bad("wrong_shape", str(error)) from None
        except UnicodeDecodeError as error:
            raise _Bad("not_utf8", str(error)) from None
        except RecursionError:
            raise _Bad("too_deep", "nested too deeply") from None
        except msgspec.DecodeError as error:
            try:
                value.decode()
            except UnicodeDecodeError as undecodable:
                raise _Bad("not_utf8", str(undecodable)) from None
            raise _Bad("invalid_json", str(error)) from None


class EventBatch(NamedTuple):
    """Decoded events with their ids and times (unix seconds); `events[i]` comes from `records[i]`."""

    events: list[Event]
    ids: list[str]
    times: list[float]
    records: Sequence[Record]
    malformed: list[Malformed]


class EventCodec:
    """Decoder of declared events. Refuses event times more than a day ahead: one would close every label window."""

    def __init__(self, schema: EventSchema, max_bytes: int = MAX_BYTES) -> None:
        self.schema = schema
        self._codec: Codec[Event] = Codec(schema.event, max_bytes)

    def decode(self, records: Sequence[Record], now: float) -> EventBatch:
        """Decode a batch; `now` in unix seconds."""
        events, kept, malformed = self._codec.decode(records)
        times = self.schema.times(events, [record.timestamp for record in kept])
        limit = latest_allowed_time(now)
        if times and max(times) > limit:
            malformed += [
                Malformed(record, "future_time", f"event time {time:.3f} is more than a day after now ({now:.3f})")
                for record, time in zip(kept, times, strict=True)
                if time > limit
            ]
            fine = [i for i, time in enumerate(times) if time <= limit]
            events, kept, times = [events[i] for i in fine], [kept[i] for i in fine], [times[i] for i in fine]
        return EventBatch(events, self.schema.ids(events, kept), times, kept, malformed)


class _Bad(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
