"""The log port: an ordered, partitioned, durable store of records, and the operations that every driver implements.

Drivers: `log.sqlite.log` (one SQLite file, several processes) and `log.kafka.log` (an Apache Kafka cluster).
`log.url.open_log` chooses by URL. One contract suite (tests/contracts) tests both against the promises made here.

Terms: a *position* is the offset of the NEXT record to read. A *committed* position carries a short metadata string
that is stored in the same transaction. Timestamps of records are unix milliseconds; all other times in Tailrace are
unix seconds.

Errors (each message names the event, the object and the fix):

    LogError
    +-- Unreachable        the broker or file cannot be reached, or refuses the connection (exit code 4)
    +-- TopicMissing       a named topic does not exist, or has an unsuitable number of partitions
    +-- TooLarge           a record exceeds the log's size limit; nothing of the transaction was written
    +-- Aborted            the transaction or commit did not happen, or its outcome is unknown; go back to the
    |                      committed positions, which show the outcome
    +-- Fenced             a newer instance with the same writer name has taken over; this one must end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from tailrace.errors import Exit, TailraceError
from tailrace.streams.log.records import Out, Record


class LogError(TailraceError):
    """Base class of the errors that a log raises on purpose."""


class Unreachable(LogError):
    """The log cannot be reached; the message names the address and the cause."""

    exit_code = Exit.UNREACHABLE


class TopicMissing(LogError):
    """A topic does not exist, or exists with an unsuitable number of partitions."""

    hint = " (`tailrace run` and `tailrace send` create a pipeline's topics)"


class TooLarge(LogError):
    """A record exceeds the size limit of its topic."""


class Aborted(LogError):
    """Nothing since the last commit was written; re-read from the committed positions.

    Exception: on Kafka the answer to a commit can be lost after the broker has completed it. Then everything was
    written, and the committed positions show it.
    """


class Fenced(LogError):
    """Another process with the same writer name has taken over; everything since the last commit is void."""

    hint = " (several workers or joiners need names of their own: --instance)"


RECORD_BYTES = 1_048_576
"""Default of the largest record that a topic takes."""
WAITING_RECORDS = 50_000
"""Number of records that a writer accepts while a commit is under way; beyond it `write` may wait for the commit."""


class Delivery(StrEnum):
    """Effect of a crash on the output. EXACTLY_ONCE: none. AT_LEAST_ONCE: records may be written again."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class Sharing(StrEnum):
    """Division of partitions among the readers of a group.

    SPREAD moves as few partitions as possible when readers come and go. TOGETHER gives partition N of all topics to
    the same reader (the join needs a prediction and its label in one place).
    """

    SPREAD = "spread"
    TOGETHER = "together"


class TopicPartition(NamedTuple):
    """One partition of a topic: an ordered stream of records."""

    topic: str
    partition: int


class Committed(NamedTuple):
    """A position that a group has committed, and the metadata that the step stored with it."""

    offset: int
    metadata: str = ""


Positions: TypeAlias = Mapping[TopicPartition, Committed]


class Batch(NamedTuple):
    """Records that one read returned.

    `at_end` maps each partition whose end the reader has reached to the position there: no record was left to read at
    that moment, and the control records of Kafka transactions lie below the position too. A partition at its end may
    be missing (a later read names it); a partition that is not at its end is never named. A reader that reads topics
    TOGETHER names a silent partition again after others have moved on.
    """

    records: list[Record]
    at_end: Mapping[TopicPartition, int] = MappingProxyType({})


class Topic(msgspec.Struct, frozen=True):
    """Specification of a topic to create.

    `retention_s` and `compacted` exclude each other. Without either, the log's own default applies: the embedded log
    keeps records for ever, a Kafka cluster for its configured time.
    """

    name: str
    partitions: int = 1
    compacted: bool = False
    retention_s: float | None = None
    replication: int | None = None  # None: the cluster's default; ignored by the embedded log
    max_record_bytes: int = RECORD_BYTES


class Assignment(Protocol):
    """Listener that a reader calls, inside `Reader.read`, when partitions come and go.

    It may commit through its writer; it must not read.
    """

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Start to process these partitions at these positions (None: the group has never committed)."""

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit the work on these partitions; another reader gets them when this returns."""

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        """Drop uncommitted work on these partitions; another reader may have them already."""


class Subscription(msgspec.Struct, frozen=True):
    """Arguments of `Log.reader`; see there."""

    topics: tuple[str, ...]
    group: str | None = None
    instance: str = ""
    sharing: Sharing = Sharing.SPREAD
    listener: Assignment | None = None
    alone: bool = False
    start: Mapping[TopicPartition, int] = {}

    @property
    def membership(self) -> bool:
        """True for a member of a group, False for a reader that takes all partitions."""
        return self.group is not None and not self.alone


class Reader(Protocol):
    """Reader of batches: a member of a group, which shares partitions, or a reader of all partitions."""

    def read(self, max_records: int, timeout: float) -> Batch:
        """Return the next records, at most `max_records`, each partition in order; empty after `timeout` seconds.

        Returns as soon as a record is there, without waiting for a full batch. Only committed records are returned.
        Raises Unreachable when the log has not answered for long, TopicMissing.
        """

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """Partitions that this reader holds now."""

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue reading from these positions. Partitions that are not assigned are ignored."""

    def rewind(self) -> dict[TopicPartition, Committed | None]:
        """Go back to the committed positions of all assigned partitions (to the beginning where there is none).

        Returns the committed positions in the form that `Assignment.assigned` gets.
        """

    def close(self) -> None:
        """Leave the group at once, so that others take over without waiting for a time-out. Commits nothing."""


class Writer(Protocol):
    """Writer of records and positions.

    With EXACTLY_ONCE everything between two commits becomes visible together with the positions, or never.

    A commit may still be under way when `commit` returns: the next `commit`, `flush` or `write` waits for it and
    raises its error. So a caller may read and score during a commit; after `flush` everything is durable.
    """

    def write(self, records: Sequence[Out]) -> None:
        """Add records to the open transaction, in this order within each partition.

        Raises TooLarge, Aborted, Fenced.
        """

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        """End the transaction: the records and the positions, for the reader's group, become durable together.

        Raises Aborted (this or the previous transaction left nothing behind, or the reader no longer holds a partition
        of `positions`), Fenced. Success is certain after `flush`.
        """

    @property
    def committing(self) -> bool:
        """True while a commit is under way: another one would wait for it."""

    def flush(self) -> None:
        """Wait until the last commit is durable. Raises the error of the commit."""

    def abort(self) -> None:
        """Drop everything since the last commit; the writer stays usable. Never raises Aborted."""

    def close(self) -> None:
        """Abort the open transaction and free the connection."""


class Log(Protocol):
    """A set of topics. Threads may share a log, but not its readers and writers.

    A driver inherits from this class and implements every method except `reader`.
    """

    def create(self, topics: Sequence[Topic]) -> None:
        """Create topics that do not exist, leave the others unchanged, and return when all can be used."""

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic; 0 when it does not exist."""

    def topics(self) -> dict[str, int]:
        """Return every topic with its number of partitions, without internal topics."""

    def record_limit(self, topic: str) -> int:
        """Return the size in bytes that one record of a topic may have: key, value and headers. Raises TopicMissing.

        On Kafka it is the limit for a batch of one record that is not compressed.
        """

    def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """Return the partition that a writer chooses for this key. Raises TopicMissing."""

    def begin_positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the offset of the oldest record kept, by partition. Raises TopicMissing."""

    def end_positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the position behind the newest committed record, by partition. Raises TopicMissing.

        On Kafka it lies behind the control records of transactions too, which take offsets as records do.
        """

    def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, Committed]:
        """Return a group's committed positions on these topics; partitions without a commit are absent."""

    def scan(self, partition: TopicPartition, start: int, end: int) -> Iterator[list[Record]]:
        """Yield the committed records of one partition with start <= offset < end, in batches."""

    def subscribe(self, subscription: Subscription) -> Reader:
        """Open a reader; called by `reader`."""

    def reader(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        instance: str = "",
        sharing: Sharing = Sharing.SPREAD,
        listener: Assignment | None = None,
        alone: bool = False,
        start: Mapping[TopicPartition, int] | None = None,
    ) -> Reader:
        """Open a reader of these topics.

        With `group`: a member of the group; starts at the group's committed positions, else at the beginning.
        With `group` and `alone`: takes all partitions without membership, because a fixed writer name decides which
        process is the one (the retrainer); starts at `start`, else at committed, else at the beginning.
        Without `group`: takes all partitions, starts at `start` (absent partitions: at the beginning), never commits.
        Raises TopicMissing, Unreachable.
        """
        return self.subscribe(Subscription(tuple(topics), group, instance, sharing, listener, alone, start or {}))

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Writer:
        """Open a writer. Raises Unreachable, and ValueError for EXACTLY_ONCE without a name.

        EXACTLY_ONCE needs a `name` (pipeline-role-instance): opening the writer fences every older writer of that name
        and ends the transaction that it may have left open. AT_LEAST_ONCE: records become durable at `commit` or
        `flush` at the latest, positions only after them.
        """

    def reopen(self) -> Log:
        """Open the same log again, with the same options and connections of its own.

        A forked child needs it, because it cannot use the connections of its parent. Safe to call there: it touches
        none of them. Raises Unreachable.
        """

    def close(self) -> None:
        """Free the log's own connections; readers and writers are closed by their owners."""
