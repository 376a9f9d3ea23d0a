"""Timing of reads and commits (pure): when to read again, how long to wait for records, when to commit.

    work         commit under way    next
    none         -                   read, up to IDLE_S
    uncommitted  no                  read until the commit interval is over, then commit
    uncommitted  yes                 read on: the transaction grows instead of waiting for the one before
    void         -                   nothing may be committed; the runner goes back to the committed positions

All times are seconds on one monotonic clock, passed in as `now`.
"""

from __future__ import annotations

from tailrace.streams.log.base import Delivery

IDLE_S = 0.1  # longest wait of a read without uncommitted work; bounds the time until a stop is noticed
LEAST_WAIT_S = 0.001  # shortest wait of a read
GATHER_S = 0.005  # longest time between two reads of a stream that is not behind
BACKLOG_FACTOR = 3  # commit intervals that a transaction spans while batches are full


class CommitPolicy:
    """Decisions of a runner, from the batches and commits reported to it. `commit_interval` in seconds."""

    def __init__(self, delivery: Delivery, commit_interval: float) -> None:
        self._interval = commit_interval
        # Exactly once, nothing is visible before its commit: reads that are a tenth of the interval apart cost little
        # latency, and take a stream in fewer and larger batches.
        self._gather_s = 0.0 if delivery is Delivery.AT_LEAST_ONCE else min(commit_interval / 10, GATHER_S)
        self._last_commit = self._next_read = 0.0
        self._backlog = False
        self.uncommitted = False
        """True while work has been done since the last commit."""
        self.unsettled = False
        """True while the last commit may still fail."""
        self.void = False
        """True after a rebalance took away uncommitted work: go back, and commit nothing before."""

    def took(self, records: int, room: int, now: float) -> None:
        """Record that a batch of `records` was processed, of at most `room` that the read could have returned."""
        self.uncommitted = True
        self._backlog = records >= room
        self._next_read = 0.0 if records > room // 4 else now + self._gather_s  # a backlog is taken at once

    def committed(self, now: float, started: bool) -> bool:
        """Record the end of a commit call at `now`. `started`: False if there was nothing to store.

        Returns True if the call proves that the previous commit has succeeded.
        """
        confirmed = started and self.unsettled
        self.unsettled |= started
        self.uncommitted, self._last_commit = False, now
        return confirmed

    def settled(self) -> None:
        """Record that the last commit is durable."""
        self.unsettled = False

    def went_back(self) -> None:
        """Record that the runner went back to the committed positions, so that no uncommitted work is left."""
        self.uncommitted = self.unsettled = self.void = False

    @property
    def idle(self) -> bool:
        """True if all work is committed durably."""
        return not (self.uncommitted or self.unsettled)

    def pause(self, now: float) -> float:
        """Return the seconds to pause before the next read."""
        return max(0.0, self._next_read - now)

    def wait(self, now: float) -> float:
        """Return the seconds for which the next read may wait for records."""
        return min(IDLE_S, max(LEAST_WAIT_S, self._until_commit(now))) if self.uncommitted else IDLE_S

    def commit_due(self, now: float) -> bool:
        """Return True if uncommitted work waits and the commit interval is over, also while a commit is under way."""
        return self.uncommitted and self._until_commit(now) <= 0

    def _until_commit(self, now: float) -> float:
        # In a backlog events have waited anyway: fewer and larger transactions get through it sooner.
        return self._last_commit + self._interval * (BACKLOG_FACTOR if self._backlog else 1) - now
