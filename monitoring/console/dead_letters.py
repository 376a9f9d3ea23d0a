"""Dead letters as the page shows them (pure): how many by reason, and the newest.

Of what is no JSON a masked field cannot be hidden: then, where fields are masked, nothing of it is shown. The detail
may quote a value, and is not shown either.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace.monitoring.console.redaction import HIDDEN, Mask
from tailrace.streams.log.dead_letters import DETAIL, REASON, SOURCE, header
from tailrace.streams.log.records import Record

ROWS = 25
SHOWN = 1_000  # characters of one letter


class Letters:
    """The dead letters of the topics that a pipeline reads."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rows: deque[dict[str, Any]] = deque(maxlen=ROWS)

    @property
    def total(self) -> int:
        """How many there are."""
        return self._counts.total()

    def take(self, records: Sequence[Record]) -> None:
        """Records of dead-letter topics."""
        for record in records:
            reason = header(record, REASON) or "unknown"
            self._counts[record.topic.removesuffix(".dlq"), reason] += 1
        self._rows.extend(map(self._row, records[-ROWS:]))

    def section(self) -> dict[str, Any]:
        """Newest first."""
        return {
            "total": self.total,
            "reasons": [
                {"topic": topic, "reason": reason, "count": count}
                for (topic, reason), count in self._counts.most_common(20)
            ],
            "rows": list(reversed(self._rows)),
        }

    def _row(self, record: Record) -> dict[str, Any]:
        return {
            "name": f"{record.topic}/{record.partition}/{record.offset}",
            "source": header(record, SOURCE),
            "at": record.timestamp / 1000,
            "reason": header(record, REASON) or "unknown",
            "detail": "" if self._mask else header(record, DETAIL),
            "value": self._value(record.value),
            "bytes": len(record.value or b""),
        }

    def _value(self, value: bytes | None) -> str:
        if value is None:
            return "null"
        if not self._mask:
            return value[: 4 * SHOWN].decode(errors="replace")[:SHOWN]
        try:
            decoded = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return f"{HIDDEN} (no JSON: what is masked in it cannot be told)"
        if not isinstance(decoded, dict | list):
            return HIDDEN
        return msgspec.json.encode(self._mask.value(decoded)).decode()[:SHOWN]
