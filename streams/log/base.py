"""The log: an ordered, partitioned, durable store of records, and the few verbs that every implementation keeps.

Implementations: `log.sqlite.log` (one SQLite file, several processes) and `log.kafka.log` (an Apache Kafka
cluster). `log.url.open_log` chooses by URL. One contract suite (tests/contracts) holds both to what is said
here.

Words: a *position* is the offset of the NEXT record to read. A *committed* position carries a short metadata string,
stored in the same transaction. Times in records are unix milliseconds; everywhere else in Tailrace they are unix
seconds.

Errors (every one names what happened, to what, and what to do):

    LogError
    +-- Unreachable        the broker or file cannot be reached (exit code 4)
    +-- TopicMissing       a named topic does not exist, or has other partitions than needed
    +-- TooLarge           a record exceeds the log's size limit; nothing of the transaction was written
    +-- Aborted            the transaction or commit did not happen, or nobody can tell; go back to the committed
    |                      positions, which do
    +-- Fenced             a newer instance with the same writer name has taken over; this one must end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from tailrace.errors import Exit, TailraceError
from tailrace.streams.log.records import Out, Record


class LogError(TailraceError):
    """Base of everything that a log raises on purpose."""


class Unreachable(LogError):
    """The log cannot be reached; the message names the address and what was tried."""

    exit_code = Exit.UNREACHABLE


class TopicMissing(LogError):
    """A topic does not exist, or exists with an unsuitable number of partitions."""

    hint = " (`tailrace run` and `tailrace send` create a pipeline's topics)"


class TooLarge(LogError):
    """A record is larger than the log takes."""


class Aborted(LogError):
    """Nothing since the last commit was written; re-read from the committed positions.

    All or nothing was: on Kafka the answer to a commit may have been lost, and the broker have completed it. The
    committed positions tell.
    """


class Fenced(LogError):
    """Another process with the same writer name has taken over; what this one wrote since its last commit is void."""

    hint = " (several workers or joiners need names of their own: --instance)"


WAITING_RECORDS = 50_000
"""How many records a writer takes at least while a commit is under way; beyond that `write` may wait for it."""


class Delivery(StrEnum):
    """What a crash may do to the output. EXACTLY_ONCE: nothing. AT_LEAST_ONCE: records may be written again."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class Sharing(StrEnum):
    """How the readers of a group divide partitions.

    SPREAD moves as few partitions as possible when readers come and go. TOGETHER gives partition N of all its topics
    to the same reader (the join needs a prediction and its label in one place).
    """

    SPREAD = "spread"
    TOGETHER = "together"


class TopicPartition(NamedTuple):
    """One ordered stream of records."""

    topic: str
    partition: int


class Committed(NamedTuple):
    """A position that a group has committed: the next offset to read, and what the step stored beside it."""

    offset: int
    metadata: str = ""


Positions: TypeAlias = Mapping[TopicPartition, Committed]


class Batch(NamedTuple):
    """What one read returned.

    `at_end` holds the partitions at whose end the reader stood when it had taken these records: nothing more was there
    to read at that moment. It may omit a partition that is at its end (a later read says so), never name one that is
    not. A reader that reads topics TOGETHER names a silent partition anew when others have moved on.
    """

    records: list[Record]
    at_end: frozenset[TopicPartition] = frozenset()


class Topic(msgspec.Struct, frozen=True):
    """What to create. `retention_s` and `compacted` exclude each other; None keeps records for ever."""

    name: str
    partitions: int = 1
    compacted: bool = False
    retention_s: float | None = None
    replication: int | None = None  # None: the cluster's default; ignored by the embedded log
    max_record_bytes: int = 1_048_576


class Assignment(Protocol):
    """Told, inside `Reader.read`, when partitions come and go. May commit through its writer; must not read."""

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """These partitions are ours from now on; None where the group has never committed."""

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions go to somebody else when this returns: commit what was processed of them."""

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions are no longer ours already: forget what was not committed."""


class Reader(Protocol):
    """Reads batches, either as one of a group (partitions shared and moved) or alone (all partitions, no group)."""

    def read(self, max_records: int, timeout: float) -> Batch:
        """The next records, each partition in order, at most `max_records`; an empty batch after `timeout` seconds.

        Returns as soon as anything is there: it waits for the first record, not for a full batch. Only committed
        records are returned. Raises Unreachable when the log has not answered for long, TopicMissing.
        """

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions this reader holds now."""

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read on from these positions. Partitions that are not assigned are ignored."""

    def rewind(self) -> dict[TopicPartition, Committed | None]:
        """Go back to the committed positions of every assigned partition (to the beginning where there is none).

        Returns what is committed, as `Assignment.assigned` would be told.
        """

    def close(self) -> None:
        """Leave the group at once, so that others take over without waiting for a time-out. Commits nothing."""


class Writer(Protocol):
    """Writes records; with EXACTLY_ONCE everything between two commits is visible together with the positions, or
    never.

    A commit may still be under way when `commit` returns: the next `commit` or `flush`, or a `write`, waits for it
    and raises what it raised. So a caller may read and score while a commit travels; `flush` tells that all is safe.
    """

    def write(self, records: Sequence[Out]) -> None:
        """Add records to the open transaction, in this order within each partition. Raises TooLarge, Aborted,
        Fenced."""

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        """End the transaction: the records written and the positions, for the reader's group, become durable together.

        Raises Aborted (this or the previous transaction left nothing behind, or the reader no longer holds a partition
        among `positions`), Fenced. `flush` tells whether this one succeeded.
        """

    @property
    def committing(self) -> bool:
        """Whether a commit is still under way: another one would wait for it."""

    def flush(self) -> None:
        """Wait until the last commit is durable. Raises what it raised."""

    def abort(self) -> None:
        """Drop everything since the last commit; the writer is usable again. Never raises Aborted."""

    def close(self) -> None:
        """Abort what is open and free the connection."""


class Log(Protocol):
    """A place with topics. Safe to share between threads; readers and writers are not."""

    def create(self, topics: Sequence[Topic]) -> None:
        """Create the topics that do not exist; those that do are left as they are. Returns when they can be used."""

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""

    def topics(self) -> dict[str, int]:
        """Every topic (internal ones left out) with its number of partitions."""

    def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """Where a writer puts a record with this key that names no partition. Raises TopicMissing."""

    def begin_positions(self, topic: str) -> dict[TopicPartition, int]:
        """The offset of the oldest record kept, per partition. Raises TopicMissing."""

    def end_positions(self, topic: str) -> dict[TopicPartition, int]:
        """The position behind the newest committed record, per partition. Raises TopicMissing."""

    def positions_at(self, topic: str, time: float) -> dict[TopicPartition, int]:
        """Per partition the position of the first record whose timestamp is at or after `time` (unix seconds), or the
        end."""

    def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, Committed]:
        """What a group has committed on these topics; partitions without a commit are absent."""

    def scan(self, partition: TopicPartition, start: int, end: int) -> Iterator[list[Record]]:
        """All committed records of one partition with start <= offset < end, in batches, then stop."""

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
        """A reader of these topics.

        With `group`: one of the group's members; starts at the group's committed positions, else at the beginning.
        With `group` and `alone`: takes all partitions itself without being a member, so that a fixed writer name, not
        membership, decides who is the one (the retrainer); starts at `start`, else at committed, else at the beginning.
        Without: all partitions, starts at `start` (positions missing there: at the beginning), never commits.
        Raises TopicMissing, Unreachable.
        """

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Writer:
        """A writer. EXACTLY_ONCE needs a `name` (pipeline-role-instance): opening it fences every older writer of
        that name

        and ends the transaction it may have left hanging. AT_LEAST_ONCE: records become durable by `commit` or `flush`
        at the latest, positions only after them. Raises Unreachable.
        """

    def reopen(self) -> Log:
        """Open the same log again, with the same options and connections of its own.

        A forked child needs it, because it cannot use the connections of its parent. Safe to call there: it touches
        none of them. Raises Unreachable.
        """

    def close(self) -> None:
        """Free the log's own connections; readers and writers are closed by their owners."""
