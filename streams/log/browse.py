"""Reading topics for display: the newest records, a scan, following new records, decoded values."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tailrace.streams.log.base import Log, TopicPartition
from tailrace.streams.log.codec import UNDECODABLE

if TYPE_CHECKING:
    from tailrace.streams.log.records import Record

_SPARE = 16  # extra offsets to read, because control records of transactions also occupy offsets
_SHOWN_BYTES = 2_000  # longest binary value shown in base64; of a longer one only the size is shown


class Readable(NamedTuple):
    """A decoded record. `time`: unix seconds; `value`: decoded JSON, else text, else base64 or the size in bytes."""

    topic: str
    partition: int
    offset: int
    time: float
    key: str | None
    value: Any
    headers: Mapping[str, str]


def newest(log: Log, topic: str, count: int) -> tuple[list[Record], dict[TopicPartition, int]]:
    """Return the newest `count` records of a topic, oldest first, and its end positions. Raises TopicMissing.

    Records are ordered by timestamp across partitions.
    """
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
    """Yield the records of a topic from these positions on, and new ones as they arrive; never returns."""
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
    """Decode a record for display; never raises for malformed bytes."""
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
    except UNDECODABLE:
        return _text(value)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(value).decode() if len(value) <= _SHOWN_BYTES else ""
        return f"base64:{encoded}" if encoded else f"<{len(value):,} bytes>"
