"""Dead letters as the page shows them (pure): counts by topic and reason, and the newest ones.

A field cannot be hidden in a value that is not JSON. So where fields are redacted, such values are not shown at all.
The detail of a dead letter may quote a value and is not shown either.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace.monitoring.console.redaction import HIDDEN, Redaction
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.dead_letters import DETAIL, REASON, SOURCE, header
from tailrace.streams.log.records import Record

ROWS = 25
_REASONS = 20  # rows of the table of counts
_CHARACTERS = 1_000  # of a value


class DeadLetterTable:
    """Dead letters of the topics that a pipeline reads; memory is bounded."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._counts: Counter[tuple[str, str]] = Counter()  # by topic and reason
        self._rows: deque[dict[str, Any]] = deque(maxlen=ROWS)

    @property
    def total(self) -> int:
        """Number of dead letters read."""
        return self._counts.total()

    def take(self, records: Sequence[Record]) -> None:
        """Add records of dead-letter topics."""
        for record in records:
            reason = header(record, REASON) or "unknown"
            self._counts[record.topic.removesuffix(".dlq"), reason] += 1
        self._rows.extend(map(self._row, records[-ROWS:]))

    def section(self) -> dict[str, Any]:
        """Counts by topic and reason, the most frequent first, and the newest dead letters, newest first."""
        return {
            "total": self.total,
            "reasons": [
                {"topic": topic, "reason": reason, "count": count}
                for (topic, reason), count in self._counts.most_common(_REASONS)
            ],
            "rows": list(reversed(self._rows)),
        }

    def _row(self, record: Record) -> dict[str, Any]:
        return {
            "name": f"{record.topic}/{record.partition}/{record.offset}",
            "source": header(record, SOURCE),
            "at": record.timestamp / 1000,
            "reason": header(record, REASON) or "unknown",
            "detail": "" if self._redaction else header(record, DETAIL),
            "value": self._text(record.value),
            "bytes": len(record.value or b""),
        }

    def _text(self, value: bytes | None) -> str:
        """The value as text, redacted and cut to `_CHARACTERS`."""
        if value is None:
            return "null"
        if not self._redaction:
            return value[: 4 * _CHARACTERS].decode(errors="replace")[:_CHARACTERS]  # at most 4 bytes a character
        try:
            decoded = msgspec.json.decode(value)
        except UNDECODABLE:
            return f"{HIDDEN} (not JSON: its fields cannot be redacted one by one)"
        if not isinstance(decoded, dict | list):
            return HIDDEN
        return msgspec.json.encode(self._redaction.decoded(decoded)).decode()[:_CHARACTERS]
