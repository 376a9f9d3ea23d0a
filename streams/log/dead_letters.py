"""Dead letters (pure): a record that could not be used, with its original bytes and a reason, in `<topic>.dlq`."""

from __future__ import annotations

from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.records import Out, Record

REASON = "tailrace.reason"
DETAIL = "tailrace.detail"
SOURCE = "tailrace.source"
MAX_RECORD_BYTES = 67_108_864  # of dead-letter topics: a letter is larger than its record, which may be too large
_OURS = frozenset((REASON, DETAIL, SOURCE))
_MAX_DETAIL = 500


def dead_letter_topic(topic: str) -> str:
    """The name of the dead-letter topic that belongs to a topic."""
    return f"{topic}.dlq"


def dead_letter(malformed: Malformed) -> Out:
    """The record to write: key, value and headers untouched, the reason and the source position in further headers."""
    record, reason, detail = malformed
    source = f"{record.topic}/{record.partition}/{record.offset}"
    ours = ((REASON, reason.encode()), (DETAIL, detail[:_MAX_DETAIL].encode()), (SOURCE, source.encode()))
    return Out(dead_letter_topic(record.topic), record.key, record.value, record.headers + ours, record.timestamp)


def revived(letter: Record, topic: str) -> Out:
    """The original record of a dead letter, to be written to `topic` again."""
    headers = tuple(header for header in letter.headers if header[0] not in _OURS)
    return Out(topic, letter.key, letter.value, headers, letter.timestamp)


def header(record: Record, name: str) -> str:
    """A header of a dead letter as text; empty when it has none."""
    return next((value.decode(errors="replace") for key, value in record.headers if key == name and value), "")
