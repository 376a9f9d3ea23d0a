"""Isolation after a failure: the number of records in a read, and the starts counted in committed positions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.log.base import Committed, TopicPartition
from tailrace.streams.log.records import Record
from tailrace.streams.runtime.isolation import CAREFUL, DISTANCE, Isolation
from tailrace.streams.runtime.start_marks import DEATHS, StartMarks, starts_of, with_starts

AT = TopicPartition("events", 3)


def record(offset: int, partition: int = 3) -> Record:
    return Record("events", partition, offset, 0, None, b"{}")


def test_a_failed_batch_is_halved_down_to_one_record() -> None:
    """Each failure halves what a read takes, never below one record."""
    isolation, sizes = Isolation(), []
    failed = 1_000
    for _ in range(12):
        isolation.failed(failed)
        failed = isolation.room(4_096)
        sizes.append(failed)
    assert sizes[:4] == [500, 250, 125, 62]
    assert sizes[-1] == 1


def test_reads_grow_again_and_isolation_ends() -> None:
    """After a success a read takes twice as many records; behind DISTANCE records any number."""
    isolation = Isolation()
    isolation.failed(2)
    passed = 0
    while isolation.active:
        passed += (taken := isolation.room(4_096))
        isolation.passed(taken)
    assert DISTANCE <= passed <= DISTANCE + 4_096
    assert isolation.room(4_096) == 4_096


def test_after_one_death_reads_are_small() -> None:
    """Until DISTANCE records have passed a read takes CAREFUL of them, and a death would be the second one."""
    isolation, passed = Isolation(), 0
    isolation.died_once()
    while isolation.active:
        assert (isolation.room(4_096), isolation.suspicious, isolation.alone) == (CAREFUL, True, False)
        isolation.passed(CAREFUL)
        passed += CAREFUL
    assert DISTANCE <= passed < DISTANCE + CAREFUL
    assert not isolation.suspicious


def test_after_two_deaths_records_are_read_one_at_a_time() -> None:
    """Successes do not make the reads larger, until the records have passed that a careful role may have read."""
    isolation = Isolation()
    isolation.died_twice(3)
    for _ in range(6 * CAREFUL - 1):
        isolation.passed(1)
        assert (isolation.room(4_096), isolation.alone) == (1, True)
        isolation.failed(1)
        isolation.died_once()
    isolation.passed(1)
    assert (isolation.room(4_096), isolation.alone) == (4_096, False)


@given(st.integers(1, 9), st.one_of(st.just(""), st.builds(Bookmark, st.integers(0, 99)).map(Bookmark.text)))
def test_starts_leave_the_metadata_of_a_step_readable(starts: int, metadata: str) -> None:
    """A count can be added to any metadata of a step, and replaced; the step reads its own fields unchanged."""
    marked = with_starts(with_starts(Committed(7, metadata), 5), starts)
    assert (marked.offset, starts_of(marked.metadata), starts_of(metadata)) == (7, starts, 0)
    if metadata:
        assert Bookmark.parse(marked.metadata) == Bookmark.parse(metadata)


@pytest.mark.parametrize("metadata", ["", "no JSON", "[]", '{"starts":"x"}', "[" * 100_000])
def test_foreign_metadata_counts_no_start(metadata: str) -> None:
    """Whatever another program stored as metadata is no start, and a count can be added."""
    assert starts_of(metadata) == 0
    assert msgspec.json.decode(with_starts(Committed(1, metadata), 1).metadata)["starts"] == 1


def test_a_start_is_counted_once_for_each_partition_with_records() -> None:
    """Positions are due before the first records of a partition, and not again; a new one begins at its record."""
    marks, other = StartMarks(), TopicPartition("events", 4)
    assert marks.assigned({AT: with_starts(Committed(10), 1), other: None}) == {"events/3/10": 1}
    due = marks.due([record(12), record(13)])
    assert {tp: (at.offset, starts_of(at.metadata)) for tp, at in due.items()} == {AT: (10, 2)}
    due = marks.due([record(14), record(5, partition=4)])
    assert {tp: (at.offset, starts_of(at.metadata)) for tp, at in due.items()} == {other: (5, 1)}


def test_the_first_record_after_two_deaths_is_suspect_once() -> None:
    """Only the record at the position where the role died is suspect, and not after its partition has left."""
    marks, twice = StartMarks(), with_starts(Committed(10), DEATHS)
    assert marks.assigned({AT: twice}) == {"events/3/10": 2}
    assert [marks.is_suspect(record(10)), marks.is_suspect(record(10))] == [True, False]
    marks.assigned({AT: twice})
    marks.forget([AT])
    assert not marks.is_suspect(record(10))


def test_a_start_keeps_what_the_step_has_committed_since() -> None:
    """A step may commit a position again, with newer metadata, before its partition has a record: the start is counted
    beside that, and a position that moved starts anew."""
    marks = StartMarks()
    marks.assigned({AT: with_starts(Committed(10, '{"oldest":1}'), 1)})
    assert not marks.waits([record(3, partition=9)])
    marks.committed({AT: Committed(10, '{"oldest":2}'), TopicPartition("events", 9): Committed(1)})
    assert marks.waits([record(10)])
    assert marks.due([record(10)]) == {AT: with_starts(Committed(10, '{"oldest":2}'), 2)}
    assert not marks.waits([record(11)])
    marks.assigned({AT: with_starts(Committed(10), 1)})
    marks.committed({AT: Committed(12)})
    assert marks.due([record(12)]) == {AT: with_starts(Committed(12), 1)}


def test_a_record_that_fails_is_read_alone_although_partitions_take_turns() -> None:
    """Reads stay small until as many records have passed as failed: else the partition of the culprit may always be the
    second one of a larger read."""
    isolation, turn, alone = Isolation(), 0, False
    isolation.failed(64)
    while not alone:
        taken = ["ab"[(turn + n) % 2] for n in range(isolation.room(4_096))]  # the head of partition b fails
        turn += 1
        if "b" in taken:
            alone = len(taken) == 1
            isolation.failed(len(taken))
        else:
            isolation.passed(len(taken))
        assert turn < 100
