"""The join against an offline oracle, over random interleavings, crashes and restarts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.declaration.label import JoinPolicy, Winner
from tailrace.streams.join.label_policy import Given, winner
from tailrace.streams.join.state import GRID, Bookmark, Counts, Head, PartitionJoin
from tailrace.streams.log.records import Record

WAIT = 100.0


def record(offset: int, id: str, time: float) -> Record:
    return Record("p", 0, offset, int(time * 1000), id.encode(), json.dumps({"id": id, "time": time}).encode())


@dataclass
class World:
    """Two logs that grew together: `timeline` tells in which order records were appended."""

    predictions: list[tuple[str, float]] = field(default_factory=list)
    labels: list[tuple[str, float, int]] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Events in loose order, each predicted after a lag; labels 0-3 an event, from early to too late; orphans."""
    appended: list[tuple[float, str, tuple[Any, ...]]] = []
    time = 0.0
    for number in range(draw(st.integers(2, 25))):
        time += draw(st.sampled_from([0.0, 1.5, 20.0, 60.0, 140.0]))
        id = f"e{number}"
        appended.append((time + draw(st.sampled_from([0.0, 0.5, 30.0, 90.0])), "p", (id, time)))
        for _ in range(draw(st.integers(0, 3))):
            known = time + draw(st.sampled_from([0.0, 10.0, 60.0, 95.0, 99.0, 100.0, 101.5, 180.0]))
            appended.append((known, "l", (id, known, draw(st.integers(0, 2)))))
    for number in range(draw(st.integers(0, 3))):
        known = draw(st.floats(0, max(time, 1.0)))
        appended.append((known, "l", (f"orphan{number}", known, 1)))
    world = World()
    for _, kind, what in sorted(appended, key=lambda item: item[0]):
        world.timeline.append(kind)
        (world.predictions if kind == "p" else world.labels).append(what)
    return world


def deadline(time: float) -> int:
    return int((time + WAIT) // (WAIT / GRID)) + 1


def oracle(world: World, policy: JoinPolicy) -> dict[str, tuple[object, bool]]:
    """What each event's example must say, from both logs at once: id -> (label, implicit)."""
    end = int(max(time for _, time in world.predictions) // (WAIT / GRID))
    examples: dict[str, tuple[object, bool]] = {}
    for id, time in world.predictions:
        last = deadline(time)
        fitting = [
            Given(v, t, i, v) for i, (of, t, v) in enumerate(world.labels) if of == id and t < last * (WAIT / GRID)
        ]
        if fitting and (policy.wins is Winner.FIRST or last <= end):
            examples[id] = (winner(policy.wins, fitting).value, False)
        elif not fitting and policy.implicit is not None and last <= end:
            examples[id] = (policy.implicit, True)
    return examples


class Reader:
    """Reads both logs in pieces, commits and crashes; `committed` is what survives."""

    def __init__(self, world: World, policy: JoinPolicy) -> None:
        self.world, self.policy = world, policy
        self.emitted: list[tuple[str, bytes]] = []
        self.committed = (0, 0, Bookmark(0), Bookmark(0))
        self.appended = [0, 0]
        self.restart()

    def restart(self) -> None:
        p, q, mark, label_mark = self.committed
        self.at = [p, q]
        self.pending: list[tuple[str, bytes]] = []
        self.join = PartitionJoin(self.policy, Counts())
        self.join.restore((mark, label_mark), p, [self.heads(mark.oldest, p)], self.givens(label_mark.oldest, q))

    def heads(self, start: int, end: int) -> tuple[list[Head], list[Record]]:
        rows = list(enumerate(self.world.predictions))[start:end]
        return [Head(id, time) for _, (id, time) in rows], [record(i, id, time) for i, (id, time) in rows]

    def givens(self, start: int, end: int) -> list[tuple[str, Given]]:
        return [(id, Given(v, t, i, v)) for i, (id, t, v) in list(enumerate(self.world.labels))[start:end]]

    def append(self, count: int) -> None:
        for kind in self.world.timeline[sum(self.appended) :][:count]:
            self.appended[kind == "l"] += 1

    def read(self, predictions: int, labels: int) -> None:
        q = min(self.appended[1], self.at[1] + labels)
        self.pending += self.join.labels(self.givens(self.at[1], q))
        p = min(self.appended[0], self.at[0] + predictions)
        self.pending += self.join.predictions(*self.heads(self.at[0], p))
        self.at = [p, q]
        if q == self.appended[1]:
            self.join.labels_end()

    def commit(self) -> None:
        self.pending += self.join.advance()
        self.emitted += self.pending
        self.pending = []
        predictions, labels = self.at
        self.committed = (predictions, labels, *self.join.bookmarks(predictions, labels))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 60)),
        st.tuples(st.just("read"), st.sampled_from([0, 1, 5, 30]), st.sampled_from([0, 1, 5, 30])),
        st.tuples(st.just("commit")),
        st.tuples(st.just("crash")),
    ),
    min_size=3,
    max_size=40,
)
policies = st.builds(
    JoinPolicy, wait=st.just(WAIT), wins=st.sampled_from(list(Winner)), implicit=st.sampled_from([None, 0])
)


@settings(max_examples=400)
@given(worlds(), actions, policies)
def test_every_example_comes_out_once_whatever_the_interleaving_and_the_crashes(
    world: World, plan: list[tuple[Any, ...]], policy: JoinPolicy
) -> None:
    """The committed output equals the oracle's, for each policy, however reads interleave and whenever it is killed."""
    reader = Reader(world, policy)
    for name, *arguments in plan:
        if name == "crash":
            reader.restart()
        else:
            getattr(reader, name)(*arguments)
    reader.append(len(world.timeline))
    reader.read(len(world.timeline), len(world.timeline))
    reader.commit()
    found = {id: (json.loads(value)["label"], json.loads(value).get("implicit", False)) for id, value in reader.emitted}
    assert len(found) == len(reader.emitted), "an example came out twice"
    assert oracle(world, policy) == found


@settings(max_examples=100)
@given(worlds(), policies)
def test_what_is_held_is_bounded_by_the_window(world: World, policy: JoinPolicy) -> None:
    """After everything was read, only predictions and labels within a wait of the watermark are in memory."""
    reader = Reader(world, policy)
    reader.append(len(world.timeline))
    reader.read(len(world.timeline), len(world.timeline))
    reader.commit()
    tick = int(reader.join.watermark // (WAIT / GRID))
    open_ones = sum(deadline(time) > tick for _, time in world.predictions)
    early = {id for id, time, _ in world.labels if deadline(time) > tick}
    assert len(reader.join) <= open_ones + len(early)
