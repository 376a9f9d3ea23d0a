"""Data policies: the examples that each keeps, and that offsets alone decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tailrace.declaration.data import Data, History, Recency, Reservoir, Window
from tailrace.declaration.training import Training
from tailrace.errors import DeclarationError
from tailrace.retrain.selection.buffer import Buffer, Row
from tailrace.retrain.selection.sampling import Sample, draws


def row(offset: int, partition: int = 0, *, time: float | None = None, label_time: float | None = None) -> Row:
    at = offset if label_time is None else label_time
    return Row(partition, offset, at - 60 if time is None else time, at, 1.0, b"{}", None, 0, [0.5])


def plan(data: Data, **more: int) -> Training:
    return Training(data=data, holdout=0.2, holdout_least=1, min_examples=1, **more)  # type: ignore[arg-type]


def offsets(rows: list[Row]) -> list[int]:
    return [r.offset for r in rows]


def filled(data: Data, count: int, window: int = 100) -> Buffer:
    buffer = Buffer(window, data)
    for start in range(0, count, 37):
        buffer.append(row(offset) for offset in range(start, min(start + 37, count)))
    return buffer


def test_draws_are_uniform_and_their_own() -> None:
    """Each offset, partition and seed has its own uniform number in [0, 1), independent of other rows."""
    rows = [row(offset) for offset in range(20_000)]
    drawn = draws(rows, 0)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, 20, (0, 1))[0]
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 45  # chi-square with 19 degrees of freedom, p < 0.001
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03
    assert (draws(rows[70:90], 0) == drawn[70:90]).all()
    assert not (draws(rows, 1) == drawn).any()
    assert not (draws([row(n, 1) for n in range(20_000)], 0) == drawn).any()


def test_a_reservoir_keeps_the_new_and_a_sample_of_all_that_was_learned() -> None:
    """A reservoir keeps all rows that the champion has not learned, and a sample of all that it has."""
    chosen = filled(Reservoir(50), 5_000).select({0: 4_950}, plan(Reservoir(50)))
    old = offsets(chosen.train[: -chosen.fresh])
    assert len(old) == 50
    assert offsets(chosen.train[-chosen.fresh :] + chosen.holdout) == list(range(4_950, 5_000))
    assert old == sorted(old)
    assert min(old) < 500
    assert np.mean(old) == pytest.approx(2_475, abs=700)
    assert chosen.ranges == {0: (min(old), 4_990)}


def test_a_sample_is_a_function_of_what_it_is_of() -> None:
    """The sample of given offsets is independent of the order of reading and of later rows."""
    once = filled(Reservoir(50), 5_000).select({0: 4_950}, plan(Reservoir(50)))
    buffer = Buffer(2_500, Reservoir(50))
    buffer.append(map(row, range(5_200)))
    again = buffer.select({0: 4_950}, plan(Reservoir(50)))
    assert once.train[:50] == again.train[:50]


def test_every_example_is_as_likely_in_a_sample() -> None:
    """Over many seeds each tenth of history gives a tenth of the sample."""
    counts = np.zeros(10)
    for seed in range(200):
        sample = Sample[Row](20, seed)
        sample.add([row(n) for n in range(500)])
        sample.add([row(n) for n in range(500, 1_000)])
        counts += np.bincount([r.offset // 100 for r in sample.rows()], minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 28  # chi-square with 9 degrees of freedom, p < 0.001


def test_history_keeps_all_up_to_its_limit() -> None:
    """A history keeps more than the window, and no more than its limit."""
    assert len(filled(History(), 5_000)) == 5_000
    assert len(filled(History(300), 5_000)) == 300
    assert len(filled(Window(), 5_000)) == 100
    assert len(filled(Reservoir(50), 5_000)) == 100


def test_how_far_back_a_start_reads() -> None:
    """At a start a window reads its window again, a reservoir everything, a history its limit."""
    found = [data.reach(100) for data in (Window(), Recency(5), History(300), Reservoir(50))]
    assert found == [100, 100, 300, float("inf")]


def test_after_a_rise_only_what_came_since_is_learned() -> None:
    """After a change a window forgets earlier rows once enough have come; a history and a reservoir do not."""
    changed = filled(Window(), 100).select({0: 90}, plan(Window()), changed=40)
    assert offsets(changed.train + changed.holdout) == list(range(60, 100))
    assert changed.fresh == 8
    assert changed.ranges == {0: (60, 98)}
    few = plan(Window())
    assert len(filled(Window(), 100).select({0: 90}, few, changed=0).train) == 98
    assert len(filled(History(), 100).select({0: 90}, plan(History()), changed=40).train) == 98


def test_only_mature_events_are_learned_from() -> None:
    """With a maturity slow labels are as frequent among selected rows as in truth; without one they are fewer."""
    chance = np.random.default_rng(0)
    times = np.arange(10_000.0)
    slow = chance.random(10_000) < 0.5
    known = times + np.where(slow, 4_000.0, 10.0)
    came = [n for n in np.argsort(known, kind="stable") if known[n] <= 10_000]
    rows = [row(offset, time=times[n], label_time=known[n]) for offset, n in enumerate(came)]
    is_slow = dict(enumerate(slow[came]))

    def share(data: Data) -> float:
        buffer = Buffer(20_000, data)
        buffer.append(rows)
        chosen = buffer.select({}, plan(data), now=10_000.0)
        return float(np.mean([is_slow[r.offset] for r in chosen.train + chosen.holdout]))

    assert share(Window()) < 0.4
    assert share(Window(mature=4_000)) == pytest.approx(0.5, abs=0.02)


def test_mature_events_are_fresh_once() -> None:
    """In the order of events each row is fresh in one run only, although offsets are mixed."""
    data = Window(mature=10.0)
    buffer = Buffer(100, data)
    buffer.append(row(n, time=float((n * 7) % 50), label_time=float(50 + n)) for n in range(50))
    first = buffer.select({}, plan(data), now=40.0)
    assert [r.time for r in first.train + first.holdout] == list(range(31))
    through = max(r.time for r in first.train)
    second = buffer.select({p: end for p, (_, end) in first.ranges.items()}, plan(data), now=50.0, through=through)
    assert [r.time for r in second.train[-second.fresh :] + second.holdout] == list(range(int(through) + 1, 41))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Window(mature="soon"),
        lambda: Window(mature=-1),
        lambda: Window(balance=0.5),
        lambda: Window(balance=1_000),
        lambda: History(hard=0.0),
        lambda: History(0),
        lambda: Reservoir(0),
        lambda: Recency(0.0),
    ],
)
def test_policies_outside_their_ranges_are_refused(wrong: Callable[[], Data]) -> None:
    """Values that cannot work are refused at declaration."""
    with pytest.raises(DeclarationError):
        wrong()
