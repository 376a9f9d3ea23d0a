"""The loop read -> step -> write + commit, in one thread; the log overlaps a commit with the next read and step.

Order of the steps, and the state that a crash between any two of them leaves:

    1. read a batch               nothing was written
    2. step(batch)                nothing was written
    3. writer.write(outs)         an open transaction, which nobody sees and the next instance of this name ends
    4. writer.commit(positions)   outs and positions together, or neither

So a crash anywhere means: back to the committed positions, as if nothing had been read since. `Aborted` has the same
effect without a crash. A commit in the background reports its failure at the next commit, or at the next turn that
finds nothing to do. `commit_policy` decides when to read and when to commit.

No record ends the loop. A batch that fails is read again in halves, down to the record that fails alone, which becomes
a dead letter; `isolation` decides how many records are read together. While the log cannot be reached the loop waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from tailrace.errors import TailraceError
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import (
    Aborted,
    Batch,
    Committed,
    Delivery,
    Log,
    LogError,
    Positions,
    Reader,
    Sharing,
    TooLarge,
    TopicPartition,
    Unreachable,
    Writer,
)
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, Record
from tailrace.streams.runtime.batch_size import BatchSize
from tailrace.streams.runtime.commit_policy import CommitPolicy
from tailrace.streams.runtime.isolation import Isolation
from tailrace.streams.runtime.observer import Observer
from tailrace.streams.runtime.outage import outlast
from tailrace.streams.runtime.start_marks import DEATHS, StartMarks, with_starts
from tailrace.streams.runtime.step import Step

_PAUSES_S = (0.1, 1.0)  # first and longest pause when transactions fail one after the other
_log = structlog.get_logger(__name__)


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

    `deadly(record)` returns True if processing the record alone ends a process; it is asked about the record at a
    position at which this role has died twice. Without it no record is set aside for deaths.

    Raises Fenced when a newer instance of the same name has taken over, TopicMissing, and at the start Unreachable.
    """

    def __init__(
        self,
        log: Log,
        step: Step,
        config: RunnerConfig,
        *,
        batch: BatchSize | None = None,
        observer: Observer | None = None,
        deadly: Callable[[Record], bool] | None = None,
    ) -> None:
        self._log, self._step, self._config = log, step, config
        self._batch = batch or BatchSize()
        self._observer = observer or Observer()
        self._deadly = deadly
        self._policy = CommitPolicy(config.delivery, config.commit_interval)
        self._isolation = Isolation()
        self._backoff = Backoff(*_PAUSES_S, immediate=1)
        self._marks = StartMarks()
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
                    try:
                        self._turn()
                    except Unreachable as outage:
                        self._policy.void = True  # what was processed may not have been written
                        outlast(outage, partial(self._go_back, outage), stop)
                self._finish()
            finally:
                self._reader.close()
        finally:
            self._writer.close()

    # ---- the listener of the reader

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Restore the step's state of new partitions."""
        deaths = self._marks.assigned(committed)
        twice = sorted(position for position, count in deaths.items() if count >= DEATHS)
        if twice:
            self._isolation.died_twice(len(twice))
            _log.warning("this role has died repeatedly: it reads one record at a time", positions=twice)
        elif deaths:
            self._isolation.died_once()
        self.assignment |= committed.keys()
        try:
            self._restore(committed)
        finally:
            self._observer.rebalanced("assigned", len(committed))

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit the work on partitions that this runner is about to lose, unless a rebalance has made it void."""
        try:
            if not self._policy.void:
                self._commit_durably()
        except (Aborted, TooLarge, Unreachable):
            self._policy.void = True
        self._leave("revoked", partitions)

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        """Discard all work since the last commit, because other readers may hold these partitions already."""
        self._policy.void = True
        self._leave("lost", partitions)

    def _leave(self, kind: str, partitions: frozenset[TopicPartition]) -> None:
        self.assignment -= partitions
        self._marks.forget(partitions)
        self._step.forget(partitions)
        self._observer.rebalanced(kind, len(partitions))

    # ---- the loop

    def _turn(self) -> None:
        policy, batch, isolating = self._policy, Batch([]), self._isolation.active
        try:
            time.sleep(policy.pause(time.monotonic()))
            batch = self._reader.read(self._isolation.room(self._batch.size), policy.wait(time.monotonic()))
            if policy.void:
                raise Aborted("a rebalance took partitions away")
            if self._isolation.active:
                if not isolating and not policy.idle:  # this very read has begun it: nothing before may be uncertain
                    raise Aborted("isolation begins at the committed positions")
                batch = self._cut(batch)
            self._observer.took(batch)
            if batch.records or batch.at_end.items() - self._ends.items():
                self._mark_start(batch.records)
                self._process(batch)
            else:
                self._rest()
            self._ends = batch.at_end
            if self._isolation.active:
                self._commit_durably()
                if batch.records:
                    self._isolation.passed(len(batch.records))
            elif policy.commit_due(time.monotonic()) and not self._writer.committing:
                self._commit()
        except Aborted as aborted:
            self._go_back(aborted)
        except (TooLarge, _StepFailed) as failure:
            try:
                self._isolate(batch.records, failure)
            except Aborted as aborted:
                self._go_back(aborted)

    def _process(self, batch: Batch) -> None:
        if self._isolation.alone and batch.records and self._kills(batch.records[0]):
            raise _StepFailed("fatal", "the process died whenever it processed this record alone")
        started = time.perf_counter()
        out = self._run_step(batch)
        stepped = time.perf_counter() - started  # writing may wait for a commit, which smaller batches do not speed up
        if out:
            self._writer.write(out)
        seconds = time.perf_counter() - started
        read = len(batch.records)
        self._policy.took(read, self._batch.size, time.monotonic())
        self.idle = False
        self._batch.took(read, stepped)
        self._observer.batch(read, len(out), seconds)

    def _cut(self, batch: Batch) -> Batch:
        """Give back the records beyond the room: this very read may have brought the partitions that are isolated."""
        room = self._isolation.room(len(batch.records))
        if room == len(batch.records):
            return batch
        self._reader.seek(
            {TopicPartition(r.topic, r.partition): r.offset for r in reversed(batch.records[room:])}  # the first ones
        )
        return Batch(batch.records[:room])

    def _run_step(self, batch: Batch) -> Sequence[Out]:
        try:
            return self._step(batch)
        except LogError:
            raise
        except (Exception, SystemExit) as error:  # a step may run code of the user, which may raise anything
            raise _StepFailed("not_processed", f"{type(error).__name__}: {error}") from error

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
            self._writer.commit(self._marked(positions), self._reader)
            self._marks.committed(positions)
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
        self._isolation.end()  # this is no death
        try:
            if self._policy.void:
                self._writer.abort()
            else:
                self._commit_durably()
        except Aborted as aborted:  # another reader will do this work
            _log.warning("the last batch was not committed", why=str(aborted))
            self._writer.abort()
        except (TooLarge, Unreachable) as error:  # a restart processes the batch again
            _log.warning("the last batch was not committed", why=str(error))

    def _go_back(self, aborted: LogError) -> None:
        _log.warning("going back to the committed positions", why=str(aborted))
        self._observer.aborted()
        self._rewind(self._backoff.pause())

    def _rewind(self, pause: float = 0.0) -> None:
        """Drop all work since the last commit and, after a pause in seconds, continue at the committed positions."""
        self._writer.abort()
        time.sleep(pause)
        self._step.forget(self._reader.assignment)
        self._restore(self._reader.rewind())
        self._policy.went_back()

    # ---- failures

    def _isolate(self, records: Sequence[Record], failure: TooLarge | _StepFailed) -> None:
        """Go back, to read fewer records at once; set the record aside if it failed alone."""
        alone = self._isolation.active and len(records) == 1
        self._rewind()
        if alone:
            self._set_aside(records[0], failure)
            return
        self._isolation.failed(len(records))
        _log.warning("a batch failed: reading it again in smaller parts", records=len(records), why=str(failure))

    def _set_aside(self, record: Record, failure: TooLarge | _StepFailed) -> None:
        """Commit a dead letter in place of the results of a record."""
        if isinstance(failure, _StepFailed):
            letter = Malformed(record, failure.reason, failure.detail)
        else:
            letter = Malformed(record, "too_large", str(failure))
        try:
            self._put_aside(letter, compact=False)
        except TooLarge:
            self._rewind()
            self._put_aside(letter, compact=True)
        self._isolation.passed(1)
        self._observer.set_aside(letter)
        _log.error(
            "a record was set aside as a dead letter",
            record=f"{record.topic}/{record.partition}/{record.offset}",
            reason=letter.reason,
            why=letter.detail,
        )

    def _put_aside(self, letter: Malformed, *, compact: bool) -> None:
        record = letter.record
        tp = TopicPartition(record.topic, record.partition)
        self._writer.write([dead_letter(letter, compact=compact)])
        self._step.skip(record)
        self._policy.took(1, 1, time.monotonic())
        self._commit_durably()
        self._reader.seek({tp: record.offset + 1})

    def _kills(self, record: Record) -> bool:
        """Return True if the record, the first one at the position of a suspect, ends a process by itself."""
        return self._marks.is_suspect(record) and self._deadly is not None and self._deadly(record)

    def _mark_start(self, records: Sequence[Record]) -> None:
        """Count a start at the position of each partition whose first records are about to be processed."""
        if self._marks.waits(records):
            self._commit_durably()  # nothing written goes into a transaction without its positions
            self._writer.commit(self._marks.due(records), self._reader)
            self._writer.flush()

    def _marked(self, positions: Positions) -> Positions:
        """Return positions at which a restart reads one record at a time, while a death would be the second one."""
        if not self._isolation.suspicious:
            return positions
        return {tp: with_starts(at, DEATHS) for tp, at in positions.items()}

    def _restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self._step.restore(committed)
        self._ends = {}


class _StepFailed(TailraceError):
    """The step failed, with an error of its own or of the user's code, on the records of one batch."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail
