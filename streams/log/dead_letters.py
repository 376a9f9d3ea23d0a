"""Dead letters (pure): records that could not be used, with their original bytes and a reason, in `<topic>.dlq`.

The dead letter of a large record holds the beginning of its value, with headers for the value's length and SHA-256. So
a dead letter can always be written. The whole record stays in its topic, at the source position.
"""

from __future__ import annotations

import hashlib
import re

from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.records import Headers, Out, Record, size_of

REASON = "tailrace.reason"
DETAIL = "tailrace.detail"
SOURCE = "tailrace.source"
LENGTH = "tailrace.length"
SHA256 = "tailrace.sha256"
ADDED = frozenset((REASON, DETAIL, SOURCE, LENGTH, SHA256))
"""Headers of a dead letter that its record did not have. LENGTH and SHA256 tell that the value is a beginning."""
MAX_RECORD_BYTES = 67_108_864  # of dead-letter topics that Tailrace creates
WHOLE_BYTES = 2_000_000  # largest record that is kept whole; topics take half of that by default
BEGINNING_BYTES = 65_536
COMPACT_BYTES = 1_024
_MAX_DETAIL = 500
_RESERVED = re.compile(r"(original\.)*tailrace\.")


def dead_letter_topic(topic: str) -> str:
    """Return the name of a topic's dead-letter topic."""
    return f"{topic}.dlq"


def dead_letter(malformed: Malformed, *, compact: bool = False) -> Out:
    """Return the dead letter of a record: its key, value and headers, with headers for the reason and the source.

    A record above WHOLE_BYTES is cut, and so is a smaller one with `compact`, to a few kilobytes. A header of the
    record that has a reserved name is renamed to "original.<name>", because it must not pass for ours.
    """
    record, reason, detail = malformed
    source = f"{record.topic}/{record.partition}/{record.offset}"
    added: Headers = ((REASON, reason.encode()), (DETAIL, _detail(detail)), (SOURCE, source.encode()))
    key, value, headers = record.key, record.value, record.headers
    most = COMPACT_BYTES if compact else WHOLE_BYTES
    if (size := size_of(record)) > most:
        digest = hashlib.sha256(value or b"").hexdigest()
        added += ((LENGTH, b"%d" % len(value or b"")), (SHA256, digest.encode()))
        key = key and key[:COMPACT_BYTES]
        headers = headers if size - len(record.key or b"") - len(value or b"") <= COMPACT_BYTES else ()
        value = value and value[: COMPACT_BYTES if compact else BEGINNING_BYTES]
    if any(map(_RESERVED.match, (name for name, _ in headers))):
        headers = tuple((f"original.{name}" if _RESERVED.match(name) else name, text) for name, text in headers)
    return Out(dead_letter_topic(record.topic), key, value, headers + added, record.timestamp)


def revived(letter: Record, topic: str) -> Out:
    """Return the original record of a dead letter that is not cut, to write it to `topic` again."""
    kept = [(name, value) for name, value in letter.headers if name not in ADDED]
    headers = tuple((name.removeprefix("original.") if _RESERVED.match(name) else name, text) for name, text in kept)
    return Out(topic, letter.key, letter.value, headers, letter.timestamp)


def header(record: Record, name: str) -> str:
    """Return a header of a dead letter as text; empty when it is absent."""
    return next((value.decode(errors="replace") for key, value in record.headers if key == name and value), "")


def _detail(text: str) -> bytes:
    return text[:_MAX_DETAIL].encode(errors="replace")  # an error's message may quote half a surrogate pair
