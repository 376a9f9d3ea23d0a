"""Isolation of a record that a step cannot process (pure): how many records may be read together after a failure.

    state       entered when                               a read takes           left when
    open        -                                          any number             -
    careful     this role has died once at a position      CAREFUL                DISTANCE records have passed
    alone       it has died again, there or while careful  1                      those have passed that a careful role
                                                                                  may have read together
    narrowing   a batch of n records fails                 n / 2; when n have     DISTANCE records have passed
                                                           passed, twice as many
                                                           after each success

While isolating, each batch is committed durably before the next one is read. So a batch that fails names the culprits,
and a single record that fails is set aside. `start_marks` counts deaths.
"""

from __future__ import annotations

DISTANCE = 10_000
"""Records that must pass until a role is no longer careful: more than two batches, which may be under way together."""
CAREFUL = 32
"""Records that a careful role reads together: few enough to be read alone later, one commit each."""


class Isolation:
    """State of one runner; see the module's docstring."""

    def __init__(self) -> None:
        self._most = 0  # records of one read; 0: any number
        self._left = 0  # records that must pass
        self._held = 0  # records that must pass before the reads grow: those of the batch that failed
        self._grows = False
        self.suspicious = False
        """True while careful or alone: a death now is the second one at its position."""

    @property
    def active(self) -> bool:
        """True unless the state is open."""
        return self._most > 0

    @property
    def alone(self) -> bool:
        """True if records are read one at a time because this role has died twice."""
        return self.suspicious and self._most == 1

    def room(self, size: int) -> int:
        """Return the number of records that the next read may take, at most `size`."""
        return min(size, self._most) if self._most else size

    def died_once(self) -> None:
        """Record that this role has died at a position that is read next."""
        if not self.active:
            self._most, self._left, self._grows, self.suspicious = CAREFUL, DISTANCE, False, True

    def died_twice(self, positions: int) -> None:
        """Record that this role has died twice at so many positions that are read next."""
        self._most, self._left, self._grows, self.suspicious = 1, 2 * CAREFUL * positions, False, True

    def failed(self, records: int) -> None:
        """Record that a batch of this many records failed; the same records are read again."""
        if not self.alone:
            self._most, self._left, self._grows = max(1, records // 2), DISTANCE, True
            self._held = records
            self.suspicious = False

    def passed(self, records: int) -> None:
        """Record that a batch of this many records was committed durably."""
        self._left -= records
        self._held -= records
        if self._left <= 0:
            self.end()
        elif self._grows and self._held <= 0:
            self._most *= 2

    def end(self) -> None:
        """Return to the open state."""
        self._most, self._left, self._grows, self.suspicious = 0, 0, False, False
