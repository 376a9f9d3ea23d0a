"""The records that travel through the log (pure): the raw ones a log stores, and the four kinds a pipeline speaks in.

Wire format: JSON objects, one a record, fields as named here. Times are unix seconds (float). Readers ignore fields
they do not know, so that a newer writer does not break an older reader.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from tailrace.declaration.task import LabelValue

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]

TRACE_HEADERS = frozenset(("traceparent", "tracestate"))
"""W3C Trace Context: what is made of a record carries them on, so that a trace spans both."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as a log returned it. `timestamp` is unix milliseconds; a null `value` is a tombstone."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Out(msgspec.Struct, frozen=True, gc=False):
    """One record to write. Partition: as given, else by a hash of the key (murmur2 on Kafka), else any; timestamp:
    else now."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None


def trace_of(record: Record) -> Headers:
    """Those headers of a record that say which trace it belongs to."""
    return tuple(header for header in record.headers if header[0] in TRACE_HEADERS)


class Source(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where an event lay: partition and offset in the events topic."""

    partition: int
    offset: int


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a worker says about one event; topic `<name>.predictions`, keyed by `id`.

    `features` is the event as it was scored, so that training sees what serving saw. `derived` holds the values of the
    user-function features, in the order of their declaration. `scores`: binary, the probability of the positive class;
    multi-class, one probability a class in the declared order; multi-label, each label's; regression, the value.
    """

    id: str
    time: float
    release: int
    scores: list[float]
    features: msgspec.Raw
    source: Source
    derived: list[float | None] | None = None


class Label(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The truth about one event; topic `<name>.labels`, keyed by `id`. `time`: when it became known (else the
    record's)."""

    id: str
    label: LabelValue
    time: float | None = None


class Example(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A prediction with its label; topic `<name>.examples`, keyed by `id`. `implicit`: no label came, the declaration
    gave one."""

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
