"""What is learned online, and when: the decisions alone, without a log, a process or a clock."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.declaration.online import Online
from tailrace.inference.releases.manifest import Updates
from tailrace.retrain.online.chain import CHUNK, Updater
from tailrace.retrain.selection.buffer import Row


def rows(count: int, start: int = 0, partition: int = 0) -> list[Row]:
    """Rows one second apart, their labels a minute later."""
    return [
        Row(partition, n, float(n), n + 60.0, float(n % 2), b"{}", None, 0, [0.5]) for n in range(start, start + count)
    ]


def updater(**plan: float) -> Updater:
    return Updater("e", msgspec.structs.replace(Online(labels=50, seconds=1.0), **plan), seed=7)


def offsets(some: list[Row]) -> list[int]:
    return [row.offset for row in some]


def test_an_update_is_due_with_enough_labels_and_after_enough_time() -> None:
    """49 labels are too few; 50 are enough; the next needs 50 more and a second."""
    one = updater()
    one.take(rows(49), {})
    assert not one.due(0.0)
    one.take(rows(1, start=49), {})
    assert one.due(0.0)
    one.next(0.0, 0, fits=False)
    assert not one.due(5.0), "one is under way"
    one.published(1)
    one.take(rows(60, start=50), {})
    assert not one.due(0.9)
    assert one.due(1.0)
    assert one.waiting == 60


def test_a_chain_goes_on_while_the_champion_is_its_newest() -> None:
    """Only the first update begins; another champion and a failure make the next one begin again."""
    one = updater(seconds=0.0)
    one.take(rows(400), {})
    first = one.next(0.0, 3, fits=True)
    assert first.beginning is not None
    assert (first.beginning.warm, first.beginning.seed) == (True, 7 + 3)
    one.published(4)
    one.take(rows(50, start=400), {})
    assert one.next(1.0, 4, fits=True).beginning is None
    one.published(5)
    one.take(rows(50, start=450), {})
    moved = one.next(2.0, 2, fits=True).beginning
    assert moved is not None
    assert len(moved.remembered) == 450
    one.failed(again=True)
    again = one.next(3.0, 2, fits=True)
    assert again.beginning is not None
    assert offsets(again.rows) == list(range(450, 500))


def test_what_an_earlier_process_learned_is_only_remembered() -> None:
    """Rows below the committed positions are not learned again, but replayed."""
    one = updater()
    one.take(rows(100), {0: 60})
    assert one.waiting == 40
    one.take(rows(10, start=100), {0: 60})
    update = one.next(0.0, 9, fits=True)
    assert update.beginning is not None
    assert offsets(update.beginning.remembered) == list(range(60))
    assert offsets(update.rows) == list(range(60, 110))


def test_without_fitting_weights_everything_is_learned_anew() -> None:
    """Another network, other features: what is remembered is learned too, oldest first."""
    one = updater()
    one.take(rows(100), {0: 60})
    one.take(rows(10, start=100), {0: 60})
    update = one.next(0.0, 9, fits=False)
    assert update.beginning is not None
    assert (update.beginning.warm, update.beginning.remembered, update.beginning.seed) == (False, [], 7)
    assert offsets(update.rows) == list(range(110))


def test_a_chunk_is_bounded() -> None:
    """A backlog is learned in pieces."""
    one = updater()
    one.take(rows(CHUNK + 70), {})
    assert len(one.next(0.0, 0, fits=False).rows) == CHUNK
    one.published(1)
    assert one.waiting == 70


def test_a_runs_release_knows_what_the_run_considered() -> None:
    """What it has not seen is learned again, what waits and it has seen is not."""
    one = updater()
    one.take(rows(100), {})
    one.next(0.0, 0, fits=False)
    one.published(1)
    one.take(rows(30, start=100), {})
    one.restart({0: 80})
    assert one.waiting == 50
    update = one.next(1.0, 2, fits=True)
    assert update.beginning is not None
    assert offsets(update.beginning.remembered) == list(range(80))
    assert offsets(update.rows) == list(range(80, 130))


def test_positions_tell_what_is_learned() -> None:
    """Below them nothing waits; the chunk under way counts once it is published with them."""
    one = updater()
    one.take([*rows(60), *rows(10, partition=1)], {})
    assert one.positions({0: 60, 1: 10, 2: 4}, with_chunk=False) == {0: 0, 1: 0, 2: 4}
    one.next(0.0, 0, fits=False)
    one.take(rows(5, start=60), {})
    assert one.positions({0: 65, 1: 10, 2: 4}, with_chunk=True) == {0: 60, 1: 10, 2: 4}
    assert one.positions({0: 65, 1: 10, 2: 4}, with_chunk=False) == {0: 0, 1: 0, 2: 4}


def learned(updates: Updates) -> list[tuple[int, int]]:
    """(partition, offset) of all that a release tells it was learned."""
    places, told = dict(updates.starts), []
    for chunk in updates.learned:
        for partition, count in sorted(chunk.items()):
            told += [(partition, offset) for offset in range(places[partition], places[partition] + count)]
            places[partition] += count
    return told


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(1, 80), st.sampled_from("lfoma")), max_size=25))
def test_each_label_is_learned_once_along_a_chain_and_told_so(steps: list[tuple[int, int, str]]) -> None:
    """Whatever comes in between (successes, failures by the process, operators, runs): what a release tells is what its
    chain was given, no row twice, and no row is lost."""
    one = updater(labels=20, seconds=0.0)
    ends, champion, released = {0: 0, 1: 0, 2: 0}, 0, 0
    chain: list[tuple[int, int]] = []
    remembered: set[tuple[int, int]] = set()
    for partition, count, deed in steps:
        one.take(rows(count, ends[partition], partition), {})
        ends[partition] += count
        if not one.due(0.0):
            continue
        update = one.next(0.0, champion, fits=champion > 0)
        if update.beginning is not None:
            chain, remembered = [], {(row.partition, row.offset) for row in update.beginning.remembered}
        chunk = [(row.partition, row.offset) for row in update.rows]
        if deed == "f":
            one.failed(again=True)
            continue
        told = one.told()
        assert sorted(learned(told)) == sorted([*chain, *chunk])
        assert not remembered & set(learned(told))
        chain += chunk
        released += 1
        one.published(released)
        champion = released if deed != "o" else max(0, released - 1)
        if deed == "m":
            released += 1
            champion = released
            one.restart(dict(ends))
        waiting = {(row.partition, row.offset) for row in (*one._fresh, *one._memory)}
        assert waiting == {(p, offset) for p, end in ends.items() for offset in range(end)}
