"""Writer of the embedded log: records and positions, in one transaction of the file."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple, TypeAlias

import msgspec

from tailrace.streams.log.base import WAITING_RECORDS, Aborted, Delivery, Fenced, Positions, Reader, TooLarge
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.file import BLOCK_BITS, OFFSET_BITS, File
from tailrace.streams.log.sqlite.reader import SqliteReader
from tailrace.streams.log.sqlite.retention import Cleaner, Row
from tailrace.streams.log.sqlite.topics import TopicRow, TopicTable

Rows: TypeAlias = dict[tuple[TopicRow, int], list[Row]]

_headers = msgspec.msgpack.Encoder()

# One statement for many rows takes a third less time than one for each, and takes Python's lock once.
_AT_ONCE = (2048, 32, 1)


def _insert(rows: int) -> str:
    values = (f"(?1 + {n}, ?{4 * n + 2}, ?{4 * n + 3}, ?{4 * n + 4}, ?{4 * n + 5})" for n in range(rows))
    return f"INSERT INTO record VALUES {', '.join(values)}"  # noqa: S608 (numbers of this file)


_INSERTS = {rows: _insert(rows) for rows in _AT_ONCE}


class _Positions(NamedTuple):
    """Positions that a commit stores, and the check, in the same transaction, that its reader still holds them."""

    confirm: Callable[[sqlite3.Connection], None]
    rows: list[tuple[str, int, int, str]]


class SqliteWriter:
    """Implements `log.base.Writer`. Made by `SqliteLog.writer`.

    EXACTLY_ONCE keeps records in memory until `commit`, which stores them together with the positions. AT_LEAST_ONCE
    stores each `write` at once. A commit runs in its own thread, where SQLite works without Python's lock. After a
    `write` or commit that failed, the next `commit` raises Aborted, unless `abort` was called in between: positions
    never get ahead of records.
    """

    def __init__(self, file: File, name: str, delivery: Delivery) -> None:
        self._file = file
        self._topics = TopicTable(file)
        self._cleaner = Cleaner(file)
        self._name = name
        self._epoch = file.write(lambda db: _open(db, name)) if delivery is Delivery.EXACTLY_ONCE else None
        self._rows: Rows = {}
        self._broken = False
        self._turns = itertools.count()
        self._pending: Future[None] | None = None
        self._background = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{name}")

    def write(self, records: Sequence[Out]) -> None:
        """See `log.base.Writer.write`. Raises TopicMissing too."""
        try:
            rows = self._prepare(records)
            if self._epoch is None:
                self._store(rows, None)
        except BaseException:
            self._broken = True
            raise
        if self._epoch is not None:
            self._hold(rows)

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        """See `log.base.Writer.commit`."""
        self._settle()
        rows, broken = self._rows, self._broken
        self._rows, self._broken = {}, False
        if broken:
            raise Aborted("a part of this transaction could not be written, so none of it was; start again")
        marks = self._positions(positions, reader) if positions else None
        if rows or marks:
            self._pending = self._background.submit(self._store, rows, marks)

    @property
    def committing(self) -> bool:
        """See `log.base.Writer.committing`."""
        return self._pending is not None and not self._pending.done()

    def flush(self) -> None:
        """See `log.base.Writer.flush`."""
        self._settle()

    def abort(self) -> None:
        """See `log.base.Writer.abort`."""
        try:
            self._settle()
        except Aborted:
            pass  # already dropped
        finally:
            self._rows, self._broken = {}, False

    def close(self) -> None:
        """See `log.base.Writer.close`. A commit under way is completed."""
        self._background.shutdown()
        self._file.close()

    def _hold(self, rows: Rows) -> None:
        """Keep rows until the commit; beyond WAITING_RECORDS, wait for the commit under way first."""
        for partition, more in rows.items():
            self._rows.setdefault(partition, []).extend(more)
        if self.committing and sum(map(len, self._rows.values())) > WAITING_RECORDS:
            self._settle()

    def _settle(self) -> None:
        """Wait for the commit under way. Raises its error."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except BaseException:
            self._broken = True
            raise

    def _prepare(self, records: Sequence[Out]) -> Rows:
        """Make rows by partition, before the file is locked; 0.7 us a record."""
        now = round(time.time() * 1000)
        topics = {name: self._topics.get(name) for name in {record.topic for record in records}}
        rows: Rows = {}
        for record in records:
            topic, key, value = topics[record.topic], record.key, record.value
            headers = _headers.encode(record.headers) if record.headers else None
            size = len(key or b"") + len(value or b"") + len(headers or b"")
            if size > topic.max_record_bytes:
                limit = f"topic {topic.name!r} takes {topic.max_record_bytes}"
                raise TooLarge(f"a record has {size} bytes, {limit}: write smaller ones, or raise max_record_bytes")
            row = (now if record.timestamp is None else record.timestamp, key, value, headers)
            partition = (topic, self._partition(topic, record))
            if partition in rows:
                rows[partition].append(row)
            else:
                rows[partition] = [row]
        return rows

    def _partition(self, topic: TopicRow, record: Out) -> int:
        if record.partition is not None:
            return self._topics.partition(topic.name, record.partition)
        if record.key is not None:
            return topic.partitions[topic.of_key(record.key)]
        return topic.partitions[next(self._turns) % len(topic.partitions)]

    def _positions(self, positions: Positions, reader: Reader | None) -> _Positions:
        if not isinstance(reader, SqliteReader) or reader.group is None:
            raise ValueError("positions are committed for a reader of this log that has a group")
        rows = [
            (reader.group, self._topics.partition(at.topic, at.partition), committed.offset, committed.metadata)
            for at, committed in positions.items()
        ]
        return _Positions(reader.claim(positions), rows)

    def _store(self, rows: Rows, marks: _Positions | None) -> None:
        ends = self._file.write(lambda db: self._transaction(db, rows, marks))
        for (topic, partition), more in rows.items():
            self._cleaner.step(topic, partition, more, ends[partition], time.time())

    def _transaction(self, db: sqlite3.Connection, rows: Rows, marks: _Positions | None) -> Mapping[int, int]:
        """Write records and positions in one SQLite transaction. Return the new end offset of each partition.

        Before that, check that no newer writer fences this one and that the reader still holds its leases.
        """
        if self._epoch is not None:
            self._check_epoch(db)
        if marks:
            marks.confirm(db)
        ends = {partition: _append(db, partition, more) for (_, partition), more in rows.items()}
        if marks:
            query = (
                "INSERT INTO committed VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET position = excluded.position, metadata = excluded.metadata"
            )
            db.executemany(query, marks.rows)
        return ends

    def _check_epoch(self, db: sqlite3.Connection) -> None:
        if db.execute("SELECT epoch FROM writer WHERE name = ?", (self._name,)).fetchone() != (self._epoch,):
            raise Fenced(f"a newer writer named {self._name!r} has taken over; this one must end")


def _open(db: sqlite3.Connection, name: str) -> int:
    query = "INSERT INTO writer VALUES (?, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch"
    epoch: int = db.execute(query, (name,)).fetchone()[0]
    return epoch


def _append(db: sqlite3.Connection, partition: int, rows: list[Row]) -> int:
    """Append rows at the next offsets of a partition; returns its new end."""
    query = "UPDATE partition SET next = next + ? WHERE id = ? RETURNING next"
    end: int = db.execute(query, (len(rows), partition)).fetchone()[0]
    first = (partition << OFFSET_BITS) + end - len(rows)
    last = first + len(rows) - 1
    done = 0
    for size, insert in _INSERTS.items():
        while len(rows) - done >= size:
            db.execute(insert, [first + done, *chain.from_iterable(rows[done : done + size])])
            done += size
    newest = max(row[0] for row in rows)  # a block needs an upper bound only
    blocks = [(block, newest) for block in range(first >> BLOCK_BITS, (last >> BLOCK_BITS) + 1)]
    query = "INSERT INTO block VALUES (?, ?) ON CONFLICT DO UPDATE SET newest = max(newest, excluded.newest)"
    db.executemany(query, blocks)
    return end
