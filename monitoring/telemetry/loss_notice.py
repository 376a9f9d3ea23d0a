"""Log lines about records that were not used: one at once, then at most one a minute, with their number and a cause."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from tailrace.streams.log.codec import Malformed

EVERY_S = 60.0
_DESCRIBED = frozenset(("null", "too_large", "not_utf8", "too_deep", "invalid_json", "wrong_shape", "future_time"))
"""Reasons whose detail quotes no value of the record, which may be confidential."""
_log = structlog.get_logger(__name__)


class LossNotice:
    """Counts losses of one kind and logs them. `event`: the log line; `see`: the command that shows more."""

    def __init__(
        self, event: str, see: str, *, every: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._event, self._see, self._every, self._clock = event, see, every, clock
        self._count, self._cause = 0, ""
        self._next = -float("inf")

    def add(self, count: int, cause: str) -> None:
        """Count losses; `cause` describes the first of them."""
        if count:
            self._cause = self._cause or cause
            self._count += count
        self.flush()

    def flush(self) -> None:
        """Log what was counted, unless the last line is too recent."""
        if self._count and (now := self._clock()) >= self._next:
            _log.warning(self._event, count=self._count, first=self._cause, see=self._see)
            self._next = now + self._every
            self._count, self._cause = 0, ""


def cause_of(malformed: Malformed) -> str:
    """Return the reason of a dead letter, with its detail where that quotes no value."""
    return f"{malformed.reason}: {malformed.detail}" if malformed.reason in _DESCRIBED else malformed.reason
