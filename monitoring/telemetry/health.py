"""Liveness of a loop (pure except for its clock)."""

from __future__ import annotations

import time
from collections.abc import Callable


class Health:
    """Healthy while the loop beats at least every `limit` seconds, with or without work.

    The loop is not judged before its first beat, nor after `rest`: then it does work that may take long.
    """

    def __init__(self, limit: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._last: float | None = None

    def beat(self) -> None:
        """Record that the loop has completed a turn."""
        self._last = self._clock()

    def rest(self) -> None:
        """Suspend the limit until the next beat."""
        self._last = None

    def problem(self) -> str | None:
        """Explanation of an unhealthy loop; None while it is healthy."""
        last = self._last  # read once: another thread writes it
        if last is None:
            return None
        silent = self._clock() - last
        if silent <= self._limit:
            return None
        return f"no batch, no commit and no idle turn for {silent:.0f} s (the limit is {self._limit:.0f} s)"
