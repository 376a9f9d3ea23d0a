"""The file of the embedded log: its tables, and transactions that several processes share.

Every reader and writer has its own connection; SQLite's write-ahead log lets any number of them read while one writes.
A connection does not survive a fork: open the log in the child.

A record's row id is `partition row << 40 | offset`, so that one partition is one range of the table. A block is 1,024
such ids with an upper bound of their timestamps. Blocks are the unit of retention.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import LogError, Unreachable

Synchronous = Literal["normal", "full"]
T = TypeVar("T")

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1
BLOCK_BITS = 10

_APPLICATION = 0x5461_696C  # "Tail"
_VERSION = 1
_LOCK_S = 30.0  # longest wait for a lock that another process holds
_generator = random.Random()  # not the module's generator, which a user may have seeded
_CHECKPOINT = 4 << 20  # bytes of write-ahead log; the longer it is, the longer a checkpoint takes
_SCHEMA = """
CREATE TABLE topic (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, compacted INTEGER NOT NULL, retention_ms INTEGER,
    max_record_bytes INTEGER NOT NULL);
CREATE TABLE partition (
    id INTEGER PRIMARY KEY, topic INTEGER NOT NULL REFERENCES topic, number INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0, cleaned INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number));
CREATE TABLE record (id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB);
CREATE TABLE block (id INTEGER PRIMARY KEY, newest INTEGER NOT NULL);
CREATE TABLE writer (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE committed (
    consumers TEXT NOT NULL, partition INTEGER NOT NULL REFERENCES partition, position INTEGER NOT NULL,
    metadata TEXT NOT NULL, PRIMARY KEY (consumers, partition)) WITHOUT ROWID;
CREATE TABLE consumers (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE member (
    id INTEGER PRIMARY KEY AUTOINCREMENT, consumers TEXT NOT NULL, instance TEXT NOT NULL, topics TEXT NOT NULL,
    seen REAL NOT NULL);
CREATE TABLE lease (
    consumers TEXT NOT NULL, number INTEGER NOT NULL, member INTEGER NOT NULL REFERENCES member ON DELETE CASCADE,
    PRIMARY KEY (consumers, number)) WITHOUT ROWID;
"""


class File:
    """One connection to the log's file; threads that share it take turns.

    Raises Unreachable when the file cannot be opened or stays locked for 30 s, LogError when it is not a log.
    """

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self.path = path.absolute()
        self._wal = self.path.with_name(path.name + "-wal")
        self._turn = threading.Lock()
        self._tried = 0  # size of the write-ahead log after a checkpoint that did not empty it
        with self._named_errors():
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(synchronous)
            except BaseException:
                self._db.close()
                raise

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one snapshot of the file and return its result; a lock may cause it to run again."""
        with self._turn, self._named_errors():
            return _with_lock(lambda: self._transaction("BEGIN", work))

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as the only writer; all its changes are kept, or none if it raises."""
        with self._turn, self._named_errors():
            result = _with_lock(lambda: self._transaction("BEGIN IMMEDIATE", work))
            self._checkpoint()
        return result

    def version(self) -> int:
        """Return a number that changes when another connection commits; cheaper than reading."""
        with self._turn, self._named_errors():
            return _with_lock(lambda: self._pragma("data_version"))

    def close(self) -> None:
        """Free the connection."""
        self._db.close()

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        self._db.execute(begin)
        try:
            result = work(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return result

    def _checkpoint(self) -> None:
        """Move a long write-ahead log into the tables: most of it while others continue, then the rest; truncate it.

        SQLite's automatic checkpoints cannot reset the log while several processes write, so it would grow without
        limit, and each commit would pay for another attempt.
        """
        size = self._wal.stat().st_size
        if size < _CHECKPOINT:
            self._tried = 0
        elif size >= self._tried + _CHECKPOINT // 4:  # not at each commit while readers are in the way
            if self._pragma("wal_checkpoint(PASSIVE)") == 0:  # else another process is doing it
                self._db.execute("PRAGMA busy_timeout=20")  # for readers to finish
                self._pragma("wal_checkpoint(TRUNCATE)")
                self._db.execute("PRAGMA busy_timeout=0")
            self._tried = self._wal.stat().st_size

    def _prepare(self, synchronous: Synchronous) -> None:
        # One snapshot, because another process may create the log between two queries.
        if not _with_lock(lambda: self._transaction("BEGIN", self._is_log)):
            _with_lock(lambda: self._pragma("journal_mode=WAL"))
            _with_lock(lambda: self._transaction("BEGIN IMMEDIATE", self._create))
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.execute("PRAGMA wal_autocheckpoint=0")

    def _is_log(self, db: sqlite3.Connection) -> bool:
        """True for a log, False for a new file. Raises LogError for any other file, which stays unchanged."""
        marks = self._pragma("application_id"), self._pragma("user_version")
        if marks == (_APPLICATION, _VERSION):
            return True
        if marks == (0, 0) and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            return False
        if marks[0] == _APPLICATION:
            raise LogError(
                f"{self.path} is a log of format {marks[1]}, this release reads {_VERSION}: use another file"
            )
        raise LogError(f"{self.path} is an SQLite file, but not a Tailrace log: use another file")

    def _create(self, db: sqlite3.Connection) -> None:
        if self._is_log(db):  # another process created it first
            return
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id={_APPLICATION}")
        db.execute(f"PRAGMA user_version={_VERSION}")

    def _pragma(self, text: str) -> int:
        value: int = self._db.execute(f"PRAGMA {text}").fetchone()[0]
        return value

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Unreachable(f"cannot use the log {self.path}: {error}; {self._fix(error)}") from error
        except sqlite3.DatabaseError as error:
            raise LogError(f"{self.path} cannot be used as a log: {error}; use another file") from error

    def _fix(self, error: sqlite3.OperationalError) -> str:
        if not self.path.parent.is_dir():
            return f"create the directory {self.path.parent}"
        if _is_busy(error):
            return f"another process held its lock for {_LOCK_S:.0f} s: look for a stopped one"
        return "check the permissions and the free space of its directory"


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _with_lock(attempt: Callable[[], T]) -> T:
    # SQLite's own busy handler waits in steps of up to 100 ms, much longer than a transaction of the log takes.
    deadline = time.monotonic() + _LOCK_S
    backoff: Backoff | None = None
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
        backoff = backoff or Backoff(0.002, 0.002, spread=0.9, random=_generator.random)
        time.sleep(backoff.pause())
