"""Starts counted in the metadata of committed positions (pure), so that deaths at one position are recognised.

A role adds one start to a position before it processes the first records behind it; a later commit has no such count.
So a count of two tells that the role has died there twice, on whatever machine. A clean stop counts too if no record
was processed since, which costs a slow start and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tailrace.streams.log.base import Committed, Positions, TopicPartition
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.records import Record

DEATHS = 2
"""Starts at one position after which its records are read one at a time."""
_STARTS = "starts"


class StartMarks:
    """Starts of the partitions that a runner holds."""

    def __init__(self) -> None:
        self._unmarked: dict[TopicPartition, Committed | None] = {}  # assigned, no record processed since
        self._suspects: set[TopicPartition] = set()

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> dict[str, int]:
        """Take over partitions; return how often a role has died, by position: topic/partition/offset."""
        self._unmarked.update(committed)
        starts = {tp: starts_of(at.metadata) for tp, at in committed.items() if at}
        self._suspects |= {tp for tp, count in starts.items() if count >= DEATHS}
        return {
            f"{tp.topic}/{tp.partition}/{at.offset}": starts[tp] for tp, at in committed.items() if at and starts[tp]
        }

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop partitions that belong to another reader now."""
        for tp in partitions:
            self._unmarked.pop(tp, None)
            self._suspects.discard(tp)

    def is_suspect(self, record: Record) -> bool:
        """Return True, once, for the first record read at a position at which a role has died twice."""
        tp = TopicPartition(record.topic, record.partition)
        if tp not in self._suspects:
            return False
        self._suspects.remove(tp)
        return True

    def committed(self, positions: Positions) -> None:
        """Take over positions that the step has committed, before records of their partitions were processed."""
        for tp, at in positions.items():
            if tp in self._unmarked:
                before = self._unmarked[tp]
                same = before is not None and before.offset == at.offset
                self._unmarked[tp] = with_starts(at, starts_of(before.metadata)) if before and same else at

    def waits(self, records: Sequence[Record]) -> bool:
        """Return True if a start is due before these records are processed."""
        return bool(self._unmarked) and any((r.topic, r.partition) in self._unmarked for r in records)

    def due(self, records: Sequence[Record]) -> Positions:
        """Return the positions, with one start more, to commit before these records are processed; each once."""
        marks: dict[TopicPartition, Committed] = {}
        for record in records if self._unmarked else ():
            tp = TopicPartition(record.topic, record.partition)
            if tp in self._unmarked:
                at = self._unmarked.pop(tp) or Committed(record.offset)
                marks[tp] = with_starts(at, starts_of(at.metadata) + 1)
        return marks


def starts_of(metadata: str) -> int:
    """Return the number of starts in the metadata of a committed position."""
    try:
        return msgspec.json.decode(metadata, type=_Starts).starts
    except UNDECODABLE:
        return 0


def with_starts(at: Committed, starts: int) -> Committed:
    """Return a position with this number of starts in its metadata, which is a JSON object or empty."""
    try:
        fields = msgspec.json.decode(at.metadata, type=dict[str, msgspec.Raw])
    except UNDECODABLE:
        fields = {}
    fields[_STARTS] = msgspec.Raw(b"%d" % starts)
    return Committed(at.offset, msgspec.json.encode(fields).decode())


class _Starts(msgspec.Struct):
    starts: int = 0
