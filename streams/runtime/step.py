"""The port of a step: the transformation that a runner feeds, and a step made of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tailrace.streams.log.base import Batch, Committed, Positions, TopicPartition
from tailrace.streams.log.records import Out, Record


class Step(Protocol):
    """Transformation of batches of records. It is told which partitions it has, so that it can keep state for them."""

    def __call__(self, batch: Batch) -> Sequence[Out]:
        """Process a batch and return the records to write."""

    def skip(self, record: Record) -> None:
        """Count a record as processed without processing it: it was set aside."""

    def before_commit(self) -> tuple[Sequence[Out], Positions]:
        """Return the last records to write before a commit, and the positions to commit.

        The positions lie behind all records that were processed since the last commit.
        """

    def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Prepare to process these partitions from their committed positions; discard their earlier state."""

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop the state of these partitions, which belong to another reader now."""


class Stateless:
    """Step made of a function that keeps nothing between batches."""

    def __init__(self, function: Callable[[Batch], Sequence[Out]]) -> None:
        self._function = function
        self._positions: dict[TopicPartition, int] = {}  # not committed yet
        self._reached: dict[TopicPartition, int] = {}  # the furthest position processed or committed

    def __call__(self, batch: Batch) -> Sequence[Out]:
        out: Sequence[Out] = ()
        if batch.records:
            out = self._function(batch)
            self._advance(_positions_behind(batch.records))
        if batch.at_end:  # behind control records, which would else appear as records that wait
            self._advance({tp: end for tp, end in batch.at_end.items() if end > self._reached.get(tp, 0)})
        return out

    def skip(self, record: Record) -> None:
        self._advance(_positions_behind([record]))

    def before_commit(self) -> tuple[Sequence[Out], Positions]:
        positions, self._positions = self._positions, {}
        return (), {tp: Committed(offset) for tp, offset in positions.items()}

    def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self.forget(committed)
        self._reached.update({tp: at.offset for tp, at in committed.items() if at})

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            self._positions.pop(tp, None)
            self._reached.pop(tp, None)

    def _advance(self, positions: Mapping[TopicPartition, int]) -> None:
        self._positions.update(positions)
        self._reached.update(positions)


def _positions_behind(records: Sequence[Record]) -> dict[TopicPartition, int]:
    newest = {(r.topic, r.partition): r.offset for r in records}  # plain tuples: this is done for each record
    return {TopicPartition(*at): offset + 1 for at, offset in newest.items()}
