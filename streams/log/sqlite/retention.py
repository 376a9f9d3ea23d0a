"""Retention and compaction of the embedded log, in small steps, by its writers.

Retention removes whole blocks from the head of a partition once their newest record is too old. Compaction removes
records that a newer one of the same key has superseded, and tombstones after an hour; offsets keep their gaps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from tailrace.streams.log.sqlite.file import BLOCK_BITS, OFFSET_BITS, File
from tailrace.streams.log.sqlite.topics import TopicRow

Row: TypeAlias = tuple[int, bytes | None, bytes | None, bytes | None]  # timestamp, key, value, headers

_EVERY = 1.0  # seconds between two checks of a partition that grows slowly; a fast one is checked with each new block
_BLOCKS = 2  # removed at one check: twice what a new block adds, so that retention keeps up with any rate of writing
_SLACK = 64  # records appended before a compaction, in addition to as many as the last one kept
_HEAVY = 64 << 20  # bytes of values appended before a compaction, in addition to as many as the last one kept
_SLICE = 64  # records removed in one transaction; they may have a megabyte each
_TOMBSTONES_MS = 3_600_000  # longer than any live reader is behind


class _Mark(msgspec.Struct):
    """Last check of a partition (time, block), and bytes of values appended since and kept by the last compaction."""

    checked: float = 0.0
    block: int = -1
    appended: int = 0
    kept: int = 0


class Cleaner:
    """Retention and compaction done by one writer."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._marks: dict[int, _Mark] = {}  # by partition row

    def step(self, topic: TopicRow, partition: int, rows: Sequence[Row], end: int, now: float) -> None:
        """Do a bounded piece of cleaning after `rows` were appended to a partition (row id); `now` in unix seconds."""
        if topic.retention_ms is None and not topic.compacted:
            return
        mark = self._marks.setdefault(partition, _Mark())
        if topic.compacted:
            mark.appended += sum(len(value) for _, _, value, _ in rows if value is not None)
        if end >> BLOCK_BITS == mark.block and abs(now - mark.checked) < _EVERY:
            return
        mark.checked, mark.block = now, end >> BLOCK_BITS
        now_ms = round(now * 1000)
        if topic.retention_ms is not None:
            expire(self._file, partition, now_ms - topic.retention_ms)
            return
        kept = compact(self._file, partition, now_ms, heavy=mark.appended > mark.kept + _HEAVY)
        if kept is not None:
            mark.appended, mark.kept = 0, kept


def expire(file: File, partition: int, horizon_ms: int) -> None:
    """Remove up to two blocks at the head of a partition whose records are all older than the horizon."""
    span = partition << (OFFSET_BITS - BLOCK_BITS), (partition + 1) << (OFFSET_BITS - BLOCK_BITS)

    def head(db: sqlite3.Connection) -> list[tuple[int, int]]:
        query = "SELECT id, newest FROM block WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return db.execute(query, (*span, _BLOCKS)).fetchall()

    def remove(db: sqlite3.Connection) -> None:
        for block, newest in head(db):
            if newest >= horizon_ms:
                return
            records = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
            db.execute("DELETE FROM record WHERE id >= ? AND id < ?", records)
            db.execute("DELETE FROM block WHERE id = ?", (block,))

    if any(newest < horizon_ms for _, newest in file.read(head)[:1]):
        file.write(remove)


def compact(file: File, partition: int, now_ms: int, *, heavy: bool = False) -> int | None:
    """Remove superseded records of a partition if more were appended since the last pass than that pass kept.

    The cost per record is therefore constant. `heavy`: do so in any case, because many bytes were appended; many small
    tombstones would else leave many large values in place. Returns the bytes of the values kept; None if nothing was
    done, because too few were appended.
    """
    span = partition << OFFSET_BITS, (partition + 1) << OFFSET_BITS
    query = "SELECT next, cleaned, kept FROM partition WHERE id = ?"
    end, cleaned, kept = file.read(lambda db: db.execute(query, (partition,)).fetchone())
    if end - cleaned <= kept + _SLACK and not heavy:
        return None
    records = file.read(lambda db: _keys(db, span, end, cleaned, now_ms - _TOMBSTONES_MS))
    newest = {key: id for id, key, _, _ in records}
    # Ascending, so that a tombstone is removed after everything that it deletes.
    superseded = [id for id, key, expired, _ in records if key is not None and (newest[key] != id or expired)]
    for at in range(0, len(superseded), _SLICE):
        _delete(file, superseded[at : at + _SLICE])
    marks = (end, len(records) - len(superseded), partition)
    file.write(lambda db: db.execute("UPDATE partition SET cleaned = ?, kept = ? WHERE id = ?", marks))
    removed = set(superseded)
    return sum(size for id, _, _, size in records if id not in removed)


def _keys(
    db: sqlite3.Connection, span: tuple[int, int], end: int, cleaned: int, horizon_ms: int
) -> list[tuple[int, bytes | None, bool, int]]:
    # A tombstone outlives the first pass that meets it, whatever its timestamp, so that live readers see it.
    query = (
        "SELECT id, key, value IS NULL AND timestamp < ? AND id < ?, coalesce(length(value), 0) FROM record"
        " WHERE id >= ? AND id < ? ORDER BY id"
    )
    return db.execute(query, (horizon_ms, span[0] | cleaned, span[0], span[0] | end)).fetchall()


def _delete(file: File, ids: Sequence[int]) -> None:
    file.write(lambda db: db.executemany("DELETE FROM record WHERE id = ?", [(id,) for id in ids]))
