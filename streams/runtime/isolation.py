"""Isolation of a record that a step cannot process (pure): how many records may be read together after a failure.

    state       entered when                                     a read takes            left when
    open        -                                                any number              -
    narrowing   a batch of n records fails                       n / 2, then twice as    DISTANCE records have passed
                                                                 many after each success
    alone       a role has died twice at one position            1                       DISTANCE records have passed

While isolating, each batch is committed durably before the next one is read. So a batch that fails names the culprits,
and a single record that fails is set aside. `start_marks` counts deaths.
"""

from __future__ import annotations

DISTANCE = 10_000
"""Records that must pass until isolation ends: more than two batches, which may have been under way together."""


class Isolation:
    """State of one runner; see the module's docstring."""

    def __init__(self) -> None:
        self._most = 0  # records of one read; 0: any number
        self._left = 0
        self._alone = False

    @property
    def active(self) -> bool:
        """True unless the state is open."""
        return self._most > 0

    @property
    def alone(self) -> bool:
        """True if records are read one at a time because a role has died twice."""
        return self._alone

    def room(self, size: int) -> int:
        """Return the number of records that the next read may take, at most `size`."""
        return min(size, self._most) if self._most else size

    def failed(self, records: int) -> None:
        """Record that a batch of this many records failed; the same records are read again."""
        self._most = 1 if self._alone else max(1, records // 2)
        self._left = DISTANCE

    def died(self) -> None:
        """Record that a role has died twice at the position that is read next."""
        self._most, self._left, self._alone = 1, DISTANCE, True

    def passed(self, records: int) -> None:
        """Record that a batch of this many records was committed durably."""
        self._left -= records
        if self._left <= 0:
            self.end()
        elif not self._alone:
            self._most *= 2

    def end(self) -> None:
        """Return to the open state."""
        self._most, self._left, self._alone = 0, 0, False
