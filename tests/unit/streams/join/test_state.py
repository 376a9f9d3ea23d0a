"""Rare cases of the join: labels before their event, and a changed wait."""

from __future__ import annotations

import json

import pytest

from tailrace.declaration.label import JoinPolicy
from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.join.label_policy import Given
from tailrace.streams.join.state import Counts, Emitted, Head, PartitionJoin
from tailrace.streams.log.records import Record

Event = tuple[int, str, float]  # offset, id, time


def heads(*events: Event) -> tuple[list[Head], list[Record]]:
    values = [json.dumps({"id": id, "time": time}).encode() for _, id, time in events]
    records = [Record("p", 0, offset, 0, None, value) for (offset, *_), value in zip(events, values, strict=True)]
    return [Head(id, time) for _, id, time in events], records


def give(join: PartitionJoin, offset: int, id: str, time: float) -> list[Emitted]:
    return join.labels([(id, Given(1, time, offset, 1.0))])


def close(join: PartitionJoin) -> list[str]:
    """Report the end of the labels and return the ids of the examples of closed windows."""
    join.labels_end()
    return [id for id, _ in join.advance()]


def test_an_expiring_early_label_leaves_younger_ones_alone() -> None:
    """The older of two early labels expires first; the newer one still finds its prediction."""
    counts = Counts()
    join = PartitionJoin(JoinPolicy(100.0), counts)
    give(join, 0, "x", 0.0)
    give(join, 1, "x", 90.0)
    join.predictions(*heads((0, "other", 105.0)))
    assert close(join) == []
    assert counts.unmatched == 1
    assert [id for id, _ in join.predictions(*heads((1, "x", 20.0)))] == ["x"]


@pytest.mark.parametrize("wait", [50.0, 200.0])
def test_a_changed_wait_reopens_nothing_and_drops_nothing(wait: float) -> None:
    """After a change of the wait, open windows keep theirs and closed ones stay closed, also after two restarts."""
    history: list[Event] = [(0, "open", 500.0), (1, "closed", 350.0), (2, "open too", 460.0)]
    first = PartitionJoin(JoinPolicy(100.0, implicit=0), Counts())
    first.predictions(*heads(*history))
    assert close(first) == ["closed"]
    marks = first.bookmarks(3, 0)
    for _ in range(2):
        join = PartitionJoin(JoinPolicy(wait, implicit=0), Counts())
        join.restore(marks, 3, [heads(*history)], [])
        assert close(join) == []
        marks = tuple(Bookmark.parse(mark.text()) for mark in join.bookmarks(3, 0))  # type: ignore[assignment]
    join.predictions(*heads((3, "new", 900.0)))
    assert close(join) == ["open too", "open"]
    join.predictions(*heads((4, "newer", 900.0 + wait + 10)))
    assert close(join) == ["new"]
    assert json.loads(join.bookmarks(5, 0)[0].text())["waits"] == [[3, wait]]
