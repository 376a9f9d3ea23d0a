"""Records (pure): the raw records that a log stores, and the kinds that a pipeline exchanges.

Wire format: one JSON object a record, with the field names used here. Times are unix seconds (float). Readers ignore
unknown fields, so that a newer writer does not break an older reader.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from tailrace.declaration.task import LabelValue

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]

TRACE_HEADERS = frozenset(("traceparent", "tracestate"))
"""Headers of W3C Trace Context. Records derived from a record carry them, so that a trace spans both."""
TRACE_BYTES = 512
"""Longest trace header that derived records carry: as much as W3C Trace Context asks of everybody."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record that a log returned. `timestamp` is unix milliseconds; a null `value` is a tombstone."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Out(msgspec.Struct, frozen=True, gc=False):
    """A record to write.

    Partition: as given, else by a hash of the key (murmur2 on Kafka), else any. `timestamp`: unix milliseconds; None
    for the time of writing.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None


def size_of(record: Record | Out) -> int:
    """Return the bytes of key, value and headers together."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def trace_of(record: Record) -> Headers:
    """Return the headers of a record that name its trace: the last of each name, none above TRACE_BYTES."""
    found = {name: value for name, value in record.headers if name in TRACE_HEADERS}
    return tuple((name, value) for name, value in found.items() if len(value or b"") <= TRACE_BYTES)


class Source(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Place of an event: partition and offset in the events topic."""

    partition: int
    offset: int


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Prediction of a worker for one event; topic `<name>.predictions`, keyed by `id`.

    `features` is the event as it was scored, so that training sees the same input as serving. `derived` holds the
    values of the user-function features, in the order of their declaration. `scores`: binary, the probability of the
    positive class; multi-class, one probability a class in the declared order; multi-label, one probability a label;
    regression, the value.
    """

    id: str
    time: float
    release: int
    scores: list[float]
    features: msgspec.Raw
    source: Source
    derived: list[float | None] | None = None


class LabelMessage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Observed label of one event; topic `<name>.labels`, keyed by `id`.

    `time`: the time at which it became known, unix seconds; None for the record's timestamp.
    """

    id: str
    label: LabelValue
    time: float | None = None


class Example(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A prediction with its label; topic `<name>.examples`, keyed by `id`.

    `implicit`: no label came in time, so the declaration's implicit label was used.
    """

    id: str
    time: float
    label_time: float
    label: LabelValue
    release: int
    scores: list[float]
    features: msgspec.Raw
    source: Source
    derived: list[float | None] | None = None
    implicit: bool = False
