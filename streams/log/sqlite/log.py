"""The embedded log: one SQLite file in WAL mode, shared by several processes, durable, with exactly-once commits.

Means by which it keeps the promises of `log.base`:

- Records and positions of a commit are one transaction of the file, prepared before the file is locked. A commit
  survives the death of the process at any moment; with `synchronous="full"` also a power cut (with "normal" the newest
  commits may then be missing, whole ones, never torn).
- `groups` divides partitions among readers. A commit checks its leases and its writer's epoch in the same
  transaction.
- Readers check SQLite's data version between short sleeps: another process reads a record about a millisecond after
  its commit, at almost no cost while idle.
- `retention` removes old and superseded records in small steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from tailrace.streams.log.base import (
    Committed,
    Delivery,
    Log,
    Sharing,
    Subscription,
    Topic,
    TopicMissing,
    TopicPartition,
)
from tailrace.streams.log.records import Record
from tailrace.streams.log.sqlite.file import OFFSET_BITS, OFFSET_MASK, File, Synchronous
from tailrace.streams.log.sqlite.groups import Membership
from tailrace.streams.log.sqlite.reader import SqliteReader, committed_positions, end_positions, select_records
from tailrace.streams.log.sqlite.topics import TopicTable
from tailrace.streams.log.sqlite.writer import SqliteWriter

_SCAN = 256  # records in one batch of a scan; they may have a megabyte each


class SqliteLog(Log):
    """The embedded log in the file `path`, which is created if necessary (its directory is not).

    `session_timeout`: seconds without a heartbeat after which a reader loses its partitions.
    Raises Unreachable when the file cannot be opened, LogError when it is not a log.
    """

    def __init__(self, path: str | Path, *, session_timeout: float = 6.0, synchronous: Synchronous = "normal") -> None:
        self._path = Path(path)
        self._session_timeout = session_timeout
        self._synchronous = synchronous
        self._file = self._open()
        self._topics = TopicTable(self._file)

    def create(self, topics: Sequence[Topic]) -> None:
        """See `log.base.Log.create`."""
        self._topics.create(topics)

    def partitions(self, topic: str) -> int:
        """See `log.base.Log.partitions`."""
        row = self._topics.find(topic)
        return len(row.partitions) if row else 0

    def topics(self) -> dict[str, int]:
        """See `log.base.Log.topics`."""
        return self._topics.names()

    def record_limit(self, topic: str) -> int:
        """See `log.base.Log.record_limit`."""
        return self._topics.get(topic).max_record_bytes

    def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """See `log.base.Log.partition_of`."""
        return TopicPartition(topic, self._topics.get(topic).of_key(key))

    def begin_positions(self, topic: str) -> dict[TopicPartition, int]:
        """See `log.base.Log.begin_positions`."""
        row = self._topics.get(topic)
        query = "SELECT min(id) FROM record WHERE id >= ? AND id < ?"

        def oldest(db: sqlite3.Connection) -> dict[TopicPartition, int]:
            ends = end_positions(db, row)
            positions = {}
            for at, end in ends.items():
                partition = row.partitions[at.partition]
                (id,) = db.execute(query, (partition << OFFSET_BITS, (partition + 1) << OFFSET_BITS)).fetchone()
                positions[at] = end if id is None else id & OFFSET_MASK
            return positions

        return self._file.read(oldest)

    def end_positions(self, topic: str) -> dict[TopicPartition, int]:
        """See `log.base.Log.end_positions`."""
        row = self._topics.get(topic)
        return self._file.read(lambda db: end_positions(db, row))

    def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, Committed]:
        """See `log.base.Log.committed`. Raises TopicMissing."""
        rows = [self._topics.get(topic) for topic in topics]
        return self._file.read(lambda db: committed_positions(db, group, rows))

    def scan(self, partition: TopicPartition, start: int, end: int) -> Iterator[list[Record]]:
        """See `log.base.Log.scan`. Raises TopicMissing."""
        row = self._topics.partition(*partition)
        while start < end:
            at = start
            records = self._file.read(lambda db: select_records(db, partition, row, at, end, _SCAN))  # noqa: B023
            if not records:
                return
            yield records
            start = records[-1].offset + 1

    def subscribe(self, subscription: Subscription) -> SqliteReader:
        """Open a reader; see `log.base.Log.reader`.

        All members of a group read the same topics; `read` raises LogError where they do not.
        """
        rows = [self._topics.get(topic) for topic in subscription.topics]
        counts = {len(row.partitions) for row in rows}
        if subscription.sharing is Sharing.TOGETHER and len(counts) > 1:
            topics = list(subscription.topics)
            raise TopicMissing(f"topics {topics} must have the same number of partitions to be read together")
        file = self._open()
        try:
            return SqliteReader(file, rows, subscription, self._membership(file, subscription, max(counts)))
        except BaseException:
            file.close()
            raise

    def _membership(self, file: File, subscription: Subscription, count: int) -> Membership | None:
        if subscription.group is None or subscription.alone:
            return None
        return Membership(
            file, subscription.group, subscription.topics, count, subscription.instance, self._session_timeout
        )

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> SqliteWriter:
        """See `log.base.Log.writer`."""
        if delivery is Delivery.EXACTLY_ONCE and not name:
            raise ValueError("an exactly-once writer needs a name, so that a newer one can take its place")
        file = self._open()
        try:
            return SqliteWriter(file, name, delivery)
        except BaseException:
            file.close()
            raise

    def reopen(self) -> SqliteLog:
        """See `tailrace.streams.log.base.Log`."""
        return type(self)(self._file.path, session_timeout=self._session_timeout, synchronous=self._synchronous)

    def close(self) -> None:
        """See `log.base.Log.close`."""
        self._file.close()

    def _open(self) -> File:
        return File(self._path, self._synchronous)
