"""Dead letters (pure): records that could not be used, with their original bytes and a reason, in `<topic>.dlq`."""

from __future__ import annotations

from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.records import Out, Record

REASON = "tailrace.reason"
DETAIL = "tailrace.detail"
SOURCE = "tailrace.source"
MAX_RECORD_BYTES = 67_108_864  # of dead-letter topics: a dead letter exceeds its record, which may be too large
_ADDED = frozenset((REASON, DETAIL, SOURCE))
_MAX_DETAIL = 500


def dead_letter_topic(topic: str) -> str:
    """Return the name of a topic's dead-letter topic."""
    return f"{topic}.dlq"


def dead_letter(malformed: Malformed) -> Out:
    """Return the dead letter of a record: its key, value and headers, with headers for the reason and the source."""
    record, reason, detail = malformed
    source = f"{record.topic}/{record.partition}/{record.offset}"
    added = ((REASON, reason.encode()), (DETAIL, detail[:_MAX_DETAIL].encode()), (SOURCE, source.encode()))
    return Out(dead_letter_topic(record.topic), record.key, record.value, record.headers + added, record.timestamp)


def revived(letter: Record, topic: str) -> Out:
    """Return the original record of a dead letter, to write it to `topic` again."""
    headers = tuple(header for header in letter.headers if header[0] not in _ADDED)
    return Out(topic, letter.key, letter.value, headers, letter.timestamp)


def header(record: Record, name: str) -> str:
    """Return a header of a dead letter as text; empty when it is absent."""
    return next((value.decode(errors="replace") for key, value in record.headers if key == name and value), "")
