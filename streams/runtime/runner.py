"""The one loop: read -> step -> write + commit. One thread, no asyncio; the log overlaps a commit with the next read
and step.

The order of things, and what a crash between any two of them leaves:

    1. read a batch               nothing was written
    2. step(batch)                nothing was written
    3. writer.write(outs)         an open transaction, which nobody sees and the next instance of this name ends
    4. writer.commit(positions)   outs and positions together, or neither

So a crash anywhere means: back to the committed positions, as if nothing had been read since. `Aborted` is the same
without a crash. A commit that travels in the background tells of its failure at the next commit, or at the next turn
that finds nothing to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import (
    Aborted,
    Batch,
    Committed,
    Delivery,
    Log,
    Positions,
    Reader,
    Sharing,
    TopicPartition,
    Writer,
)
from tailrace.streams.log.records import Out, Record
from tailrace.streams.runtime.batch_size import BatchSize

_NAP_S = 0.001  # how long a read waits at least
_IDLE_S = 0.1  # how long a read waits when nothing is to be committed; bounds how soon a stop is noticed
_GATHER_S = 0.005  # how far apart reads are at most
_BACKLOG = 3  # how many times the commit interval a transaction spans while batches are full
_PAUSES_S = (0.1, 1.0)  # first and longest pause when transactions fail one after the other
_log = structlog.get_logger(__name__)


class Step(Protocol):
    """A transformation of batches of records. Told which partitions it has, so that it may keep state for them."""

    def __call__(self, batch: Batch) -> Sequence[Out]:
        """The records to write for a batch."""

    def before_commit(self) -> tuple[Sequence[Out], Positions]:
        """Further records that belong to what was taken so far, and the positions behind it."""

    def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """These partitions begin at these positions; whatever was known of them is void."""

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are somebody else's now."""


class Stateless:
    """Makes a step of a function that keeps nothing between batches."""

    def __init__(self, function: Callable[[Batch], Sequence[Out]]) -> None:
        self._function = function
        self._positions: dict[TopicPartition, int] = {}  # not committed yet
        self._reached: dict[TopicPartition, int] = {}  # behind the newest position taken or committed

    def __call__(self, batch: Batch) -> Sequence[Out]:
        out: Sequence[Out] = ()
        if batch.records:
            out = self._function(batch)
            self._move(_positions_behind(batch.records))
        if batch.at_end:  # behind control records, which are no records that wait
            self._move({tp: end for tp, end in batch.at_end.items() if end > self._reached.get(tp, 0)})
        return out

    def _move(self, positions: Mapping[TopicPartition, int]) -> None:
        self._positions.update(positions)
        self._reached.update(positions)

    def before_commit(self) -> tuple[Sequence[Out], Positions]:
        positions, self._positions = self._positions, {}
        return (), {tp: Committed(offset) for tp, offset in positions.items()}

    def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self.forget(committed)
        self._reached.update({tp: at.offset for tp, at in committed.items() if at})

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            self._positions.pop(tp, None)
            self._reached.pop(tp, None)


def _positions_behind(records: Sequence[Record]) -> dict[TopicPartition, int]:
    newest = {(r.topic, r.partition): r.offset for r in records}  # plain tuples: this is done for each record
    return {TopicPartition(*at): offset + 1 for at, offset in newest.items()}


class Observer:
    """Told what the runner did; the base does nothing. Durations in seconds."""

    def took(self, batch: Batch) -> None:
        """A read returned this; it may be empty. What was in an earlier batch has been stepped and written."""

    def batch(self, read: int, written: int, seconds: float) -> None:
        """A batch was read, stepped and handed to the writer."""

    def idle(self) -> None:
        """A read came back empty: there is nothing to do."""

    def committed(self, seconds: float) -> None:
        """A commit was started; how long the loop was held up by it."""

    def rebalanced(self, kind: str, partitions: int) -> None:
        """Partitions came (assigned) or went (revoked, lost)."""

    def aborted(self) -> None:
        """A transaction left nothing behind; the loop went back to the committed positions."""


class RunnerConfig(msgspec.Struct, frozen=True):
    """Who this runner is and how it works. `commit_interval` in seconds; `writer` is the transactional name."""

    topics: tuple[str, ...]
    group: str
    writer: str
    instance: str = ""
    sharing: Sharing = Sharing.SPREAD
    delivery: Delivery = Delivery.EXACTLY_ONCE
    commit_interval: float = 0.05


class Runner:
    """Feeds a step from a log until told to stop; then finishes the batch, commits, leaves the group and returns.

    Raises Fenced when a newer instance of the same name has taken over, Unreachable, TopicMissing.
    """

    def __init__(
        self,
        log: Log,
        step: Step,
        config: RunnerConfig,
        *,
        batch: BatchSize | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._log, self._step, self._config = log, step, config
        self._batch = batch or BatchSize()
        self._observer = observer or Observer()
        self._reader: Reader
        self._writer: Writer
        self._uncommitted = False
        self._unsettled = False  # the last commit may still fail
        self._ends: Mapping[TopicPartition, int] = {}  # what the last read said: only news is work
        self._void = False  # a rebalance took away what is not committed: go back, and commit nothing before
        self._last_commit = 0.0
        self._next_read = 0.0
        self._full = False  # the last batch was: there is a backlog
        self._backoff = Backoff(*_PAUSES_S, immediate=1)
        self.assignment: frozenset[TopicPartition] = frozenset()
        """The partitions that this runner holds; safe to read from another thread."""
        self.idle = False
        """Whether the last read found nothing new, and all that was done before it is committed durably."""

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set."""
        config = self._config
        self._writer = self._log.writer(config.writer, config.delivery)
        try:
            self._reader = self._log.reader(
                config.topics, group=config.group, instance=config.instance, sharing=config.sharing, listener=self
            )
            try:
                while not stop.is_set():
                    self._turn()
                self._finish()
            finally:
                self._reader.close()
        finally:
            self._writer.close()

    def _turn(self) -> None:
        try:
            time.sleep(max(0.0, self._next_read - time.monotonic()))
            batch = self._reader.read(self._batch.size, self._patience())
            if self._void:
                raise Aborted("a rebalance came in between")
            self._observer.took(batch)
            if batch.records or batch.at_end.items() - self._ends.items():
                self._take(batch)
            else:
                self._idle()
            self._ends = batch.at_end
            if self._due():
                self._commit()
        except Aborted as aborted:
            self._go_back(aborted)

    def _take(self, batch: Batch) -> None:
        started = time.perf_counter()
        out = self._step(batch)
        stepped = time.perf_counter() - started  # writing may wait for a commit, which smaller batches do not speed up
        if out:
            self._writer.write(out)
        seconds = time.perf_counter() - started
        self._uncommitted, self.idle = True, False
        self._next_read = self._gathered(batch)
        self._full = len(batch.records) >= self._batch.size
        self._batch.took(len(batch.records), stepped)
        self._observer.batch(len(batch.records), len(out), seconds)

    def _gathered(self, batch: Batch) -> float:
        """When to read again. Exactly once, nothing is visible before its commit: reads that are a tenth of the
        interval apart cost little latency, and take a stream in fewer and larger batches. A backlog is taken at once.
        """
        config = self._config
        if config.delivery is Delivery.AT_LEAST_ONCE or len(batch.records) > self._batch.size // 4:
            return 0.0
        return time.monotonic() + min(config.commit_interval / 10, _GATHER_S)

    def _idle(self) -> None:
        if self._unsettled and not self._writer.committing:
            self._writer.flush()
            self._unsettled = False
            self._backoff.reset()
        self.idle = not (self._uncommitted or self._unsettled)
        self._observer.idle()

    def _patience(self) -> float:
        return min(_IDLE_S, max(_NAP_S, self._until_due())) if self._uncommitted else _IDLE_S

    def _due(self) -> bool:
        """Whether to commit now. While the last commit travels, the transaction grows instead of waiting for it."""
        return self._uncommitted and self._until_due() <= 0 and not self._writer.committing

    def _until_due(self) -> float:
        """Seconds until the commit interval is over. In a backlog, where events have waited anyway, it is longer: fewer
        and larger transactions get through it sooner."""
        interval = self._config.commit_interval * (_BACKLOG if self._full else 1)
        return self._last_commit + interval - time.monotonic()

    def _commit(self) -> None:
        started = time.monotonic()
        out, positions = self._step.before_commit()
        if out:
            self._writer.write(out)
        if positions:
            self._writer.commit(positions, self._reader)
            if self._unsettled:  # the one before it has succeeded
                self._backoff.reset()
            self._unsettled = True
        self._uncommitted = False
        self._last_commit = time.monotonic()
        self._observer.committed(self._last_commit - started)

    def _commit_and_wait(self) -> None:
        """Commit what was done, durably. Raises Aborted."""
        if self._uncommitted:
            self._commit()
        self._writer.flush()
        self._unsettled = False

    def _finish(self) -> None:
        try:
            self._commit_and_wait()
        except Aborted as aborted:  # another reader will do this work
            _log.warning("the last batch was not committed", why=str(aborted))
            self._writer.abort()

    def _go_back(self, aborted: Aborted) -> None:
        _log.warning("going back to the committed positions", why=str(aborted))
        self._observer.aborted()
        self._writer.abort()
        time.sleep(self._backoff.pause())
        self._step.forget(self._reader.assignment)
        self._restore(self._reader.rewind())
        self._uncommitted = self._unsettled = self._void = False

    def _restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self._step.restore(committed)
        self._ends = {}
        self.assignment |= committed.keys()

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Called by the reader: partitions came."""
        self._restore(committed)
        self._observer.rebalanced("assigned", len(committed))

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """Called by the reader: partitions go; commit what was done of them first, unless it is void already."""
        try:
            if not self._void:
                self._commit_and_wait()
        except Aborted:
            self._void = True
        self.assignment -= partitions
        self._step.forget(partitions)
        self._observer.rebalanced("revoked", len(partitions))

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        """Called by the reader: partitions are gone already; nothing done since the last commit may be kept."""
        self._void = True
        self.assignment -= partitions
        self._step.forget(partitions)
        self._observer.rebalanced("lost", len(partitions))
