"""Partitions of one Kafka reader as a table of phases and events (pure: no client is called here).

    phase       seek              listener            ends with
    STABLE      applied           silent              -
    ASSIGNING   start position    hears `assigned`    DONE
    REVOKING    ignored           hears `revoking`    DONE
    LOSING      ignored           hears `lost`        DONE
    CLOSED      ignored           silent              -

librdkafka delivers ASSIGN, REVOKE and LOSE from within poll and consume. Records that one consume call returns for a
partition that moved meanwhile are dropped: a partition that was revoked belongs to another reader, and one that was
assigned starts where the listener wants it to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto

from tailrace.streams.log.base import Aborted, Assignment, Committed, TopicPartition


class Phase(Enum):
    """State of a reader with respect to the rebalances of its group."""

    STABLE = auto()
    ASSIGNING = auto()
    REVOKING = auto()
    LOSING = auto()
    CLOSED = auto()


class RebalanceEvent(Enum):
    """Cause of a change of phase."""

    ASSIGN = auto()
    REVOKE = auto()
    LOSE = auto()
    DONE = auto()  # the listener has returned
    CLOSE = auto()


class Seek(Enum):
    """Treatment of a seek, by phase."""

    APPLIED = auto()  # the consumer moves
    START = auto()  # the partition is about to be assigned: the position becomes its start
    IGNORED = auto()  # the partition is leaving, or has left


TRANSITIONS: Mapping[tuple[Phase, RebalanceEvent], Phase] = {
    (Phase.STABLE, RebalanceEvent.ASSIGN): Phase.ASSIGNING,
    (Phase.STABLE, RebalanceEvent.REVOKE): Phase.REVOKING,
    (Phase.STABLE, RebalanceEvent.LOSE): Phase.LOSING,
    (Phase.STABLE, RebalanceEvent.CLOSE): Phase.CLOSED,
    (Phase.ASSIGNING, RebalanceEvent.DONE): Phase.STABLE,
    (Phase.REVOKING, RebalanceEvent.DONE): Phase.STABLE,
    (Phase.LOSING, RebalanceEvent.DONE): Phase.STABLE,
    (Phase.CLOSED, RebalanceEvent.ASSIGN): Phase.CLOSED,
    (Phase.CLOSED, RebalanceEvent.REVOKE): Phase.CLOSED,
    (Phase.CLOSED, RebalanceEvent.LOSE): Phase.CLOSED,
    (Phase.CLOSED, RebalanceEvent.DONE): Phase.CLOSED,
    (Phase.CLOSED, RebalanceEvent.CLOSE): Phase.CLOSED,
}

SEEKS: Mapping[Phase, Seek] = {
    Phase.STABLE: Seek.APPLIED,
    Phase.ASSIGNING: Seek.START,
    Phase.REVOKING: Seek.IGNORED,
    Phase.LOSING: Seek.IGNORED,
    Phase.CLOSED: Seek.IGNORED,
}


class Rebalance:
    """Partitions that a reader holds, the positions they start at, and the calls of its listener."""

    def __init__(self, listener: Assignment | None, beginning: int) -> None:
        self._listener, self._beginning = listener, beginning
        self._unannounced: Mapping[TopicPartition, Committed | None] | None = None
        self._moved: set[TopicPartition] = set()  # during the consume call under way
        self._error: Exception | None = None  # of the listener; it may not pass through librdkafka
        self.phase = Phase.STABLE
        self.held: set[TopicPartition] = set()
        self.starts: dict[TopicPartition, int] = {}

    def take(self, committed: Mapping[TopicPartition, Committed | None], start: Mapping[TopicPartition, int]) -> None:
        """Record that these partitions are held without a group; `announce` then calls the listener.

        They start at `start`, else at the committed positions, else at the beginning.
        """
        self.held = set(committed)
        self.starts = self.starts_of(committed) | {at: offset for at, offset in start.items() if at in self.held}
        self._unannounced = committed

    def announce(self) -> None:
        """Call the listener for the partitions taken without a group; later calls do nothing."""
        committed, self._unannounced = self._unannounced, None
        if committed is not None and self._listener is not None:
            self._listener.assigned(committed)

    def assign(self, committed: Mapping[TopicPartition, Committed | None]) -> dict[TopicPartition, int]:
        """Add partitions that the group has assigned. Return their start positions, which the listener may move."""
        self.held |= committed.keys()
        self._moved |= committed.keys()
        self.starts |= self.starts_of(committed)
        with self._during(RebalanceEvent.ASSIGN) as audible:
            if audible and committed and self._listener is not None:
                self._call(lambda listener: listener.assigned(committed), self._listener)
        return {at: self.starts[at] for at in committed}

    def revoke(self, partitions: frozenset[TopicPartition]) -> None:
        """Call the listener, which commits, then record that these partitions are not held any more."""
        with self._during(RebalanceEvent.REVOKE) as audible:
            if audible and partitions and self._listener is not None:
                self._call(lambda listener: listener.revoking(partitions), self._listener)
        self._give_up(partitions)

    def lose(self, partitions: frozenset[TopicPartition]) -> None:
        """Record the loss of partitions that another reader may have already, then call the listener."""
        self._give_up(partitions)
        with self._during(RebalanceEvent.LOSE) as audible:
            if audible and self._listener is not None:
                self._call(lambda listener: listener.lost(partitions), self._listener)

    def close(self) -> None:
        """Stop all further calls of the listener."""
        self.phase = TRANSITIONS[self.phase, RebalanceEvent.CLOSE]

    def seek(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Seek held partitions as the phase of the rebalance allows: record the positions as their starts.

        Return the positions that the consumer must move to now. Partitions that are not held are ignored.
        """
        rule = SEEKS[self.phase]
        if rule is Seek.IGNORED:
            return {}
        ours = {at: offset for at, offset in positions.items() if at in self.held}
        self.starts |= ours
        return ours if rule is Seek.APPLIED else {}

    def begin_consume(self) -> None:
        """Forget the partitions that moved before the consume call that follows."""
        self._moved.clear()

    @property
    def moved(self) -> frozenset[TopicPartition]:
        """Partitions that came or went during the consume call under way."""
        return frozenset(self._moved) if self._moved else frozenset()

    def raise_error(self) -> None:
        """Raise the exception that a listener raised inside a librdkafka callback, if there is one."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def check_held(self, partitions: Iterable[TopicPartition], group: str | None) -> None:
        """Raise Aborted when the reader does not hold one of these partitions."""
        foreign = sorted(set(partitions) - self.held)
        if foreign:
            names = ", ".join(f"{at.topic}[{at.partition}]" for at in foreign)
            raise Aborted(f"Not committed: {names} moved to another reader of group {group!r}; it continues there")

    def starts_of(self, committed: Mapping[TopicPartition, Committed | None]) -> dict[TopicPartition, int]:
        """Return the positions to start at: the committed ones, else the beginning."""
        return {at: known.offset if known else self._beginning for at, known in committed.items()}

    @contextmanager
    def _during(self, event: RebalanceEvent) -> Iterator[bool]:
        """Stay in the phase of an event until the listener has returned. Yield False if it must not be called."""
        self.phase = TRANSITIONS[self.phase, event]
        try:
            yield self.phase is not Phase.CLOSED
        finally:
            self.phase = TRANSITIONS[self.phase, RebalanceEvent.DONE]

    def _call(self, call: Callable[[Assignment], None], listener: Assignment) -> None:
        try:
            call(listener)
        except Exception as error:
            self._error = error

    def _give_up(self, partitions: frozenset[TopicPartition]) -> None:
        self._moved |= partitions
        self.held -= partitions
