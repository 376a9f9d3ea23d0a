"""Is a loop alive (pure but for the clock it is given)?"""

from __future__ import annotations

import time
from collections.abc import Callable


class Health:
    """Well while the loop has made progress or found nothing to do within `limit` seconds.

    A process is not judged before its loop's first beat, and not while the loop rests: it does something that may take
    its time.
    """

    def __init__(self, limit: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._last: float | None = None

    def beat(self) -> None:
        """The loop has come round."""
        self._last = self._clock()

    def rest(self) -> None:
        """The next beat may be long in coming."""
        self._last = None

    def problem(self) -> str | None:
        """What is wrong, in words; None when nothing is."""
        last = self._last  # read once: another thread writes it
        if last is None:
            return None
        silent = self._clock() - last
        if silent <= self._limit:
            return None
        return f"no batch, no commit and no idle turn for {silent:.0f} s (the limit is {self._limit:.0f} s)"
