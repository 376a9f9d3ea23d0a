"""Plan of online updates: the decisions alone, without a log, a process or a clock."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.declaration.online import Online
from tailrace.inference.releases.manifest import Updates
from tailrace.retrain.online.chain import MAX_CHUNK, UpdatePlanner
from tailrace.retrain.selection.buffer import Row


def rows(count: int, start: int = 0, partition: int = 0) -> list[Row]:
    """Rows one second apart, their labels a minute later."""
    return [
        Row(partition, n, float(n), n + 60.0, float(n % 2), b"{}", None, 0, [0.5]) for n in range(start, start + count)
    ]


def planner(**plan: float) -> UpdatePlanner:
    return UpdatePlanner("e", msgspec.structs.replace(Online(labels=50, seconds=1.0), **plan), seed=7)


def offsets(some: list[Row]) -> list[int]:
    return [row.offset for row in some]


def test_an_update_is_due_with_enough_labels_and_after_enough_time() -> None:
    """49 labels are too few; 50 are enough; the next needs 50 more and a second."""
    one = planner()
    one.take(rows(49), {})
    assert not one.due(0.0)
    one.take(rows(1, start=49), {})
    assert one.due(0.0)
    one.next_update(0.0, 0, fits=False)
    assert not one.due(5.0), "one is under way"
    one.published(1)
    one.take(rows(60, start=50), {})
    assert not one.due(0.9)
    assert one.due(1.0)
    assert one.chunk == 60


def test_a_chain_goes_on_while_the_champion_is_its_newest() -> None:
    """Only the first update begins; another champion and a failure make the next one begin again."""
    one = planner(seconds=0.0)
    one.take(rows(400), {})
    first = one.next_update(0.0, 3, fits=True)
    assert first.start is not None
    assert (first.start.warm, first.start.seed) == (True, 7 + 3)
    one.published(4)
    one.take(rows(50, start=400), {})
    assert one.next_update(1.0, 4, fits=True).start is None
    one.published(5)
    one.take(rows(50, start=450), {})
    moved = one.next_update(2.0, 2, fits=True).start
    assert moved is not None
    assert len(moved.replayed) == 450
    one.failed(again=True)
    again = one.next_update(3.0, 2, fits=True)
    assert again.start is not None
    assert offsets(again.rows) == list(range(450, 500))


def test_rows_that_an_earlier_process_learned_are_only_replayed() -> None:
    """Rows below the committed positions are not learned again, but replayed."""
    one = planner()
    one.take(rows(100), {0: 60})
    assert one.chunk == 40
    one.take(rows(10, start=100), {0: 60})
    update = one.next_update(0.0, 9, fits=True)
    assert update.start is not None
    assert offsets(update.start.replayed) == list(range(60))
    assert offsets(update.rows) == list(range(60, 110))


def test_without_fitting_weights_all_rows_are_learned_again() -> None:
    """For another network or other features the replayed rows are learned too, oldest first."""
    one = planner()
    one.take(rows(100), {0: 60})
    one.take(rows(10, start=100), {0: 60})
    update = one.next_update(0.0, 9, fits=False)
    assert update.start is not None
    assert (update.start.warm, update.start.replayed, update.start.seed) == (False, [], 7)
    assert offsets(update.rows) == list(range(110))


def test_a_chunk_is_bounded() -> None:
    """A backlog is learned in chunks of at most MAX_CHUNK rows."""
    one = planner()
    one.take(rows(MAX_CHUNK + 70), {})
    assert len(one.next_update(0.0, 0, fits=False).rows) == MAX_CHUNK
    one.published(1)
    assert one.chunk == 70


def test_a_refused_chunk_is_halved_until_the_smallest_is_skipped() -> None:
    """Refused rows wait again for updates of half the size, in their order; a chunk of the smallest size is skipped."""
    one = planner(seconds=0.0)
    one.take(rows(400), {})
    sizes = []
    while one.chunk:
        update = one.next_update(0.0, 0, fits=False)
        assert offsets(update.rows) == list(range(len(update.rows)))
        sizes.append(len(update.rows))
        if not one.refused():
            break
    assert sizes == [400, 200, 100, 50]
    assert one.positions({0: 400}, with_chunk=False) == {0: 50}
    assert one.chunk == 50, "chunks stay small until one is published"


def test_skipped_rows_do_not_return_without_a_champion() -> None:
    """Fresh weights do not learn skipped rows again: the rows behind them get their turn."""
    one = planner(labels=20, seconds=0.0)
    one.take(rows(60), {})
    while one.refused() if one.learning else True:
        one.next_update(0.0, 0, fits=False)
    assert offsets(one.next_update(0.0, 0, fits=False).rows)[0] == 20
    one.published(1)
    assert one.positions({0: 60}, with_chunk=False)[0] > 20


def test_chunks_grow_again_after_a_refusal() -> None:
    """Each published update doubles the largest chunk, up to MAX_CHUNK."""
    one = planner(seconds=0.0)
    one.take(rows(1_000), {})
    one.next_update(0.0, 0, fits=False)
    assert one.refused()
    sizes, version = [], 0
    while one.chunk:
        sizes.append(len(one.next_update(0.0, version, fits=version > 0).rows))
        version += 1
        one.published(version)
    assert sizes == [500, 500]


def test_after_a_run_only_rows_that_it_has_not_considered_are_learned() -> None:
    """Rows above its positions are learned again; waiting rows below them are not."""
    one = planner()
    one.take(rows(100), {})
    one.next_update(0.0, 0, fits=False)
    one.published(1)
    one.take(rows(30, start=100), {})
    one.restart({0: 80})
    assert one.chunk == 50
    update = one.next_update(1.0, 2, fits=True)
    assert update.start is not None
    assert offsets(update.start.replayed) == list(range(80))
    assert offsets(update.rows) == list(range(80, 130))


def test_positions_lie_below_every_row_that_waits() -> None:
    """No row below them waits; the chunk under way counts when it is published with them."""
    one = planner()
    one.take([*rows(60), *rows(10, partition=1)], {})
    assert one.positions({0: 60, 1: 10, 2: 4}, with_chunk=False) == {0: 0, 1: 0, 2: 4}
    one.next_update(0.0, 0, fits=False)
    one.take(rows(5, start=60), {})
    assert one.positions({0: 65, 1: 10, 2: 4}, with_chunk=True) == {0: 60, 1: 10, 2: 4}
    assert one.positions({0: 65, 1: 10, 2: 4}, with_chunk=False) == {0: 0, 1: 0, 2: 4}


def test_positions_stay_where_a_run_has_put_them_while_an_older_update_ends() -> None:
    """Rows that a run's release has learned do not wait, although an update that it overtook still holds them: their
    positions would otherwise go back, and a restart would learn them again."""
    one = planner()
    one.take([*rows(60), *rows(10, partition=1)], {})
    one.next_update(0.0, 0, fits=False)
    one.take(rows(5, start=60), {})
    one.restart({0: 60, 1: 4})
    assert one.positions({0: 65, 1: 10}, with_chunk=False) == {0: 60, 1: 4}
    one.failed(again=True)
    assert one.positions({0: 65, 1: 10}, with_chunk=False) == {0: 60, 1: 4}


def learned(updates: Updates) -> list[tuple[int, int]]:
    """List (partition, offset) of every row that a lineage records as learned."""
    places, told = dict(updates.starts), []
    for chunk in updates.learned:
        for partition, count in sorted(chunk.items()):
            told += [(partition, offset) for offset in range(places[partition], places[partition] + count)]
            places[partition] += count
    return told


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(1, 80), st.sampled_from("lfomar")), max_size=25))
def test_a_lineage_names_each_label_of_its_chain_once(steps: list[tuple[int, int, str]]) -> None:
    """After any sequence of successes, failures, refusals, promotions and runs, a release records the rows that its
    chain was given, no row twice, and no row is lost but those up to a skipped one."""
    one = planner(labels=20, seconds=0.0)
    ends, champion, released = {0: 0, 1: 0, 2: 0}, 0, 0
    chain: list[tuple[int, int]] = []
    remembered: set[tuple[int, int]] = set()
    skipped = {0: -1, 1: -1, 2: -1}  # partition -> offset of the last row that was skipped
    for partition, count, deed in steps:
        one.take(rows(count, ends[partition], partition), {})
        ends[partition] += count
        if not one.due(0.0):
            continue
        update = one.next_update(0.0, champion, fits=champion > 0)
        if update.start is not None:
            chain, remembered = [], {(row.partition, row.offset) for row in update.start.replayed}
        chunk = [(row.partition, row.offset) for row in update.rows]
        if deed == "f":
            one.failed(again=True)
            continue
        if deed == "r":
            if not one.refused():
                skipped |= dict(sorted(chunk))
            continue
        told = one.lineage()
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
        kept = {(row.partition, row.offset) for row in (*one._waiting, *one._replayed)}
        assert kept >= {(p, offset) for p, end in ends.items() for offset in range(skipped[p] + 1, end)}
        assert kept <= {(p, offset) for p, end in ends.items() for offset in range(end)}
