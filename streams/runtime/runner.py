"""The loop read -> step -> write + commit, in one thread; the log overlaps a commit with the next read and step.

Order of the steps, and the state that a crash between any two of them leaves:

    1. read a batch               nothing was written
    2. step(batch)                nothing was written
    3. writer.write(outs)         an open transaction, which nobody sees and the next instance of this name ends
    4. writer.commit(positions)   outs and positions together, or neither

So a crash anywhere means: back to the committed positions, as if nothing had been read since. `Aborted` has the same
effect without a crash. A commit in the background reports its failure at the next commit, or at the next turn that
finds nothing to do. `commit_policy` decides when to read and when to commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import msgspec
import structlog

from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import (
    Aborted,
    Batch,
    Committed,
    Delivery,
    Log,
    Reader,
    Sharing,
    TopicPartition,
    Writer,
)
from tailrace.streams.runtime.batch_size import BatchSize
from tailrace.streams.runtime.commit_policy import CommitPolicy
from tailrace.streams.runtime.step import Step

_PAUSES_S = (0.1, 1.0)  # first and longest pause when transactions fail one after the other
_log = structlog.get_logger(__name__)


class Observer:
    """Observer of a runner; the base class does nothing. Durations in seconds."""

    def took(self, batch: Batch) -> None:
        """Receive the batch that a read returned, before the step processes it. The batch may be empty.

        When this is called, the step has processed all earlier batches, and their results were handed to the writer.
        They may not be committed yet.
        """

    def batch(self, read: int, written: int, seconds: float) -> None:
        """Receive the numbers of records read and written, and the duration, of a batch handed to the writer."""

    def idle(self) -> None:
        """Receive that a read returned nothing to process."""

    def committed(self, seconds: float) -> None:
        """Receive that a commit was started, and the seconds for which the loop waited for it."""

    def rebalanced(self, kind: str, partitions: int) -> None:
        """Receive the kind of a rebalance (assigned, revoked or lost), and the number of partitions that it moved."""

    def aborted(self) -> None:
        """Receive that a transaction was aborted. The loop then continues at the committed positions."""


class RunnerConfig(msgspec.Struct, frozen=True):
    """Identity and timing of a runner. `commit_interval` in seconds; `writer` is the transactional name."""

    topics: tuple[str, ...]
    group: str
    writer: str
    instance: str = ""
    sharing: Sharing = Sharing.SPREAD
    delivery: Delivery = Delivery.EXACTLY_ONCE
    commit_interval: float = 0.05


class Runner:
    """Feeds a step from a log until it is stopped; then finishes the batch, commits, leaves the group and returns.

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
        self._policy = CommitPolicy(config.delivery, config.commit_interval)
        self._backoff = Backoff(*_PAUSES_S, immediate=1)
        self._reader: Reader
        self._writer: Writer
        self._ends: Mapping[TopicPartition, int] = {}  # of the last read: only a new end is work
        self.assignment: frozenset[TopicPartition] = frozenset()
        """Partitions that this runner holds; safe to read from another thread."""
        self.idle = False
        """True if the last read returned nothing new, and all earlier work is committed durably."""

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

    # ---- the listener of the reader

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Restore the step's state of new partitions."""
        self._restore(committed)
        self.assignment |= committed.keys()
        self._observer.rebalanced("assigned", len(committed))

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit the work on partitions that this runner is about to lose, unless a rebalance has made it void."""
        try:
            if not self._policy.void:
                self._commit_durably()
        except Aborted:
            self._policy.void = True
        self._leave("revoked", partitions)

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        """Discard all work since the last commit, because other readers may hold these partitions already."""
        self._policy.void = True
        self._leave("lost", partitions)

    def _leave(self, kind: str, partitions: frozenset[TopicPartition]) -> None:
        self.assignment -= partitions
        self._step.forget(partitions)
        self._observer.rebalanced(kind, len(partitions))

    # ---- the loop

    def _turn(self) -> None:
        policy = self._policy
        try:
            time.sleep(policy.pause(time.monotonic()))
            batch = self._reader.read(self._batch.size, policy.wait(time.monotonic()))
            if policy.void:
                raise Aborted("a rebalance took partitions away")
            self._observer.took(batch)
            if batch.records or batch.at_end.items() - self._ends.items():
                self._process(batch)
            else:
                self._rest()
            self._ends = batch.at_end
            if policy.commit_due(time.monotonic()) and not self._writer.committing:
                self._commit()
        except Aborted as aborted:
            self._go_back(aborted)

    def _process(self, batch: Batch) -> None:
        started = time.perf_counter()
        out = self._step(batch)
        stepped = time.perf_counter() - started  # writing may wait for a commit, which smaller batches do not speed up
        if out:
            self._writer.write(out)
        seconds = time.perf_counter() - started
        read = len(batch.records)
        self._policy.took(read, self._batch.size, time.monotonic())
        self.idle = False
        self._batch.took(read, stepped)
        self._observer.batch(read, len(out), seconds)

    def _rest(self) -> None:
        if self._policy.unsettled and not self._writer.committing:
            self._writer.flush()
            self._policy.settled()
            self._backoff.reset()
        self.idle = self._policy.idle
        self._observer.idle()

    def _commit(self) -> None:
        started = time.monotonic()
        out, positions = self._step.before_commit()
        if out:
            self._writer.write(out)
        if positions:
            self._writer.commit(positions, self._reader)
        now = time.monotonic()
        if self._policy.committed(now, started=bool(positions)):
            self._backoff.reset()
        self._observer.committed(now - started)

    def _commit_durably(self) -> None:
        """Commit all work and wait until it is durable. Raises Aborted."""
        if self._policy.uncommitted:
            self._commit()
        self._writer.flush()
        self._policy.settled()

    def _finish(self) -> None:
        try:
            self._commit_durably()
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
        self._policy.went_back()

    def _restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self._step.restore(committed)
        self._ends = {}
