"""Pauses between attempts, growing exponentially (pure: it computes durations, the caller waits)."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Pauses in seconds between the attempts at one operation.

    The pauses are 0 (`immediate` times), then `first`, 2 `first`, 4 `first`, ..., never more than `longest`. With
    `random`, a source of numbers in [0, 1), each pause is drawn uniformly from [(1 - spread) pause, pause], so that
    processes that failed together do not retry together.

    Raises ValueError for arguments outside 0 < first <= longest and 0 <= spread <= 1.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        immediate: int = 0,
        spread: float = 0.5,
        random: Callable[[], float] | None = None,
    ) -> None:
        if not (0 < first <= longest and 0 <= spread <= 1):
            raise ValueError(f"a back-off needs 0 < first {first} <= longest {longest} and 0 <= spread {spread} <= 1")
        self._first, self._longest, self._immediate = first, longest, immediate
        self._spread, self._random = spread, random
        self._next = first
        self.failures = 0
        """Number of pauses taken since the last reset."""

    def pause(self) -> float:
        """Return the pause before the next attempt, in seconds, and count one more failure."""
        self.failures += 1
        if self.failures <= self._immediate:
            return 0.0
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause if self._random is None else pause * (1 - self._spread * self._random())

    def reset(self) -> None:
        """Start again from the shortest pause: the operation succeeded."""
        self.failures, self._next = 0, self._first
