"""Topics shown to people: the newest records, new records as they come, decoded values."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tailrace.streams.log.base import Log, TopicPartition

if TYPE_CHECKING:
    from tailrace.streams.log.records import Record

_SPARE = 16  # further offsets to read, because control records of transactions take offsets too
_SHOWN_BYTES = 2_000


class Readable(NamedTuple):
    """A decoded record. `time`: unix seconds; `value`: decoded JSON, text, base64 of binary data, or its size."""

    topic: str
    partition: int
    offset: int
    time: float
    key: str | None
    value: Any
    headers: Mapping[str, str]


def newest(log: Log, topic: str, count: int) -> tuple[list[Record], dict[TopicPartition, int]]:
    """Return the newest `count` records of a topic by timestamp, and its end positions. Raises TopicMissing."""
    begin, end = log.begin_positions(topic), log.end_positions(topic)
    records: list[Record] = []
    for partition, stop in end.items():
        span, start = count + _SPARE, stop
        kept: list[Record] = []
        while len(kept) < count and start > begin[partition]:
            start = max(begin[partition], stop - span)
            kept = [record for batch in log.scan(partition, start, stop) for record in batch]
            span *= 4
        records += kept[-count:] if count else []
    records.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return records[-count:] if count else [], end


def follow(log: Log, topic: str, start: Mapping[TopicPartition, int]) -> Iterator[Record]:
    """Yield the records from these positions on, without end."""
    reader = log.reader([topic], start=start)
    try:
        while True:
            yield from reader.read(max_records=500, timeout=0.5).records
    finally:
        reader.close()


def scan(log: Log, topic: str) -> Iterator[Record]:
    """Yield all records of a topic, partition by partition. Raises TopicMissing."""
    begin = log.begin_positions(topic)
    for partition, stop in log.end_positions(topic).items():
        for batch in log.scan(partition, begin[partition], stop):
            yield from batch


def readable(record: Record) -> Readable:
    """Decode a record to show it."""
    headers = {name: _text(value) or "" for name, value in record.headers}
    key = _text(record.key)
    return Readable(
        record.topic, record.partition, record.offset, record.timestamp / 1000, key, _value(record.value), headers
    )


def _value(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _text(value)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        shown = base64.b64encode(value).decode() if len(value) <= _SHOWN_BYTES else ""
        return f"base64:{shown}" if shown else f"<{len(value):,} bytes>"
