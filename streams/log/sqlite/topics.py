"""Topics of the embedded log, and the row ids of their partitions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

from tailrace.streams.log.base import Topic, TopicMissing
from tailrace.streams.log.sqlite.file import File


class TopicRow(NamedTuple):
    """A topic as the database stores it; `partitions` holds the row id of each partition, by partition number."""

    name: str
    id: int
    compacted: bool
    retention_ms: int | None
    max_record_bytes: int
    partitions: tuple[int, ...]

    def of_key(self, key: bytes) -> int:
        """Return the number of the partition for records with this key."""
        return crc32(key) % len(self.partitions)


class TopicTable:
    """Topics of one file. Topics are never changed or removed, so rows are cached."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._known: dict[str, TopicRow] = {}

    def create(self, topics: Sequence[Topic]) -> None:
        """Create the topics that do not exist. Raises ValueError for an impossible topic."""
        for topic in topics:
            if topic.compacted and topic.retention_s is not None:
                raise ValueError(f"topic {topic.name!r}: `compacted` and `retention_s` exclude each other")
            if topic.partitions < 1:
                raise ValueError(f"topic {topic.name!r}: a topic has at least one partition, not {topic.partitions}")
        missing = [topic for topic in topics if self.find(topic.name) is None]
        if missing:
            self._file.write(lambda db: _insert(db, missing))

    def names(self) -> dict[str, int]:
        """Return every topic with its number of partitions."""
        query = "SELECT name, count(*) FROM topic JOIN partition ON topic.id = topic GROUP BY name ORDER BY name"
        return dict(self._file.read(lambda db: db.execute(query).fetchall()))

    def find(self, name: str) -> TopicRow | None:
        """Return the topic of this name; None when it does not exist."""
        if name not in self._known:
            row = self._file.read(lambda db: _select(db, name))
            if row is None:
                return None
            self._known[name] = row
        return self._known[name]

    def get(self, name: str) -> TopicRow:
        """Return the topic of this name. Raises TopicMissing."""
        topic = self.find(name)
        if topic is None:
            raise TopicMissing(f"there is no topic {name!r} in {self._file.path}: create it, or check the name")
        return topic

    def partition(self, name: str, number: int) -> int:
        """Return the row id of a partition. Raises TopicMissing."""
        topic = self.get(name)
        if not 0 <= number < len(topic.partitions):
            raise TopicMissing(f"topic {name!r} has {len(topic.partitions)} partitions, not a partition {number}")
        return topic.partitions[number]


def _insert(db: sqlite3.Connection, topics: Iterable[Topic]) -> None:
    for topic in topics:
        retention_ms = None if topic.retention_s is None else round(topic.retention_s * 1000)
        row = db.execute(
            "INSERT INTO topic (name, compacted, retention_ms, max_record_bytes) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING id",
            (topic.name, topic.compacted, retention_ms, topic.max_record_bytes),
        ).fetchone()
        if row:
            partitions = [(row[0], number) for number in range(topic.partitions)]
            db.executemany("INSERT INTO partition (topic, number) VALUES (?, ?)", partitions)


def _select(db: sqlite3.Connection, name: str) -> TopicRow | None:
    query = "SELECT id, compacted, retention_ms, max_record_bytes FROM topic WHERE name = ?"
    row = db.execute(query, (name,)).fetchone()
    if row is None:
        return None
    rows = db.execute("SELECT id FROM partition WHERE topic = ? ORDER BY number", (row[0],))
    return TopicRow(name, row[0], bool(row[1]), row[2], row[3], tuple(id for (id,) in rows))
