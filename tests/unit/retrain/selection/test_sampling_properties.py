"""Laws of every data policy, over random logs, positions and rhythms of reading."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tailrace.declaration.data import Data, History, Recency, Reservoir, Window
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.retrain.selection.buffer import Buffer, Row
from tailrace.retrain.selection.weights import weigh

WINDOW = 40
OPTIONS = {
    "mature": st.sampled_from([0.0, 20.0]),
    "balance": st.sampled_from([1.0, 10.0]),
    "hard": st.sampled_from([1.0, 0.5]),
    "late": st.booleans(),
}
POLICIES: st.SearchStrategy[Data] = st.one_of(
    st.builds(Window, **OPTIONS),
    st.builds(Recency, st.floats(1, 1e4), **OPTIONS),
    st.builds(Reservoir, st.integers(1, 60), st.integers(0, 2**64), **OPTIONS),
    st.builds(History, st.integers(1, 200), **OPTIONS),
)
LOGS = st.lists(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 30), st.booleans(), st.booleans()), max_size=60),
    min_size=1,
    max_size=3,
)


def rows_of(log: list[list[tuple[float, float, bool, bool]]]) -> list[list[Row]]:
    return [
        [
            Row(p, offset, offset + time, offset + time + delay, float(target), b"{}", None, 1, [0.3], implicit)
            for offset, (time, delay, target, implicit) in enumerate(partition)
        ]
        for p, partition in enumerate(log)
    ]


def read(log: list[list[Row]], data: Data, seed: int, window: int = WINDOW) -> Buffer:
    """Rows of the partitions in a random interleaving."""
    chance, waiting, buffer = random.Random(seed), [list(rows) for rows in log], Buffer(window, data)
    while any(waiting):
        rows = chance.choice([rows for rows in waiting if rows])
        count = chance.randint(1, 5)
        buffer.append(rows[:count])
        del rows[:count]
    return buffer


@given(POLICIES, LOGS, st.integers(0, 60), st.floats(0, 150), st.none() | st.integers(0, 99), st.integers(0, 9))
def test_a_selection_is_bounded_whole_and_covered(
    data: Data, log: list[list[tuple[float, float, bool, bool]]], end: int, now: float, changed: int | None, seed: int
) -> None:
    """A selection has each row once, mature rows only, fresh rows last, ranges that cover it, a separate holdout and
    sound weights."""
    rows = rows_of(log)
    plan = Training(data=data, window=WINDOW, min_examples=1, holdout_least=1)
    seen, through = dict.fromkeys(range(len(rows)), end), float(end)
    chosen = read(rows, data, seed).select(seen, plan, now=now, through=through, changed=changed)
    places = [(row.partition, row.offset) for row in chosen.train + chosen.holdout]
    assert len(set(places)) == len(places)
    assert all(rows[partition][offset].offset == offset for partition, offset in places)
    assert len(places) <= data.held(WINDOW) + (data.size if isinstance(data, Reservoir) else 0)
    if data.mature_s:
        assert all(row.time + data.mature_s <= now for row in chosen.train + chosen.holdout)
    assert all(chosen.ranges[row.partition][0] <= row.offset < chosen.ranges[row.partition][1] for row in chosen.train)
    fresh = [row.time > through if data.mature_s else row.offset >= end for row in chosen.train]
    assert fresh == [False] * (len(fresh) - chosen.fresh) + [True] * chosen.fresh
    for warm in (False, True):
        weighed = weigh(chosen, Task(Kind.BINARY), plan, warm=warm, wait=30.0)
        assert set(map(id, weighed.selection.train)) <= set(map(id, chosen.train))
        assert weighed.selection.fresh == chosen.fresh
        if weighed.weights is not None:
            assert weighed.weights.shape == (len(weighed.selection.train),)
            assert (weighed.weights >= 0).all()
            assert 0 < weighed.weights.mean() <= 1.001


@given(POLICIES, LOGS, st.integers(0, 60), st.integers(0, 9), st.integers(0, 9))
def test_what_is_chosen_does_not_depend_on_how_it_was_read(
    data: Data, log: list[list[tuple[float, float, bool, bool]]], end: int, one: int, other: int
) -> None:
    """Any interleaving of the partitions gives the same selection and weights while all unseen rows are held."""
    rows = rows_of(log)
    plan = Training(data=data, window=WINDOW, min_examples=1, holdout_least=1)
    wide = 200 if not isinstance(data, History) else data.limit + 200
    seen = dict.fromkeys(range(len(rows)), end)
    first, second = (
        read(rows, data, seed, wide).select(seen, plan, now=90.0, through=float(end)) for seed in (one, other)
    )
    assert first == second
    weights = [weigh(chosen, Task(Kind.BINARY), plan, warm=False, wait=30.0) for chosen in (first, second)]
    assert weights[0].selection == weights[1].selection
    assert weights[0].prior == weights[1].prior
    assert (weights[0].weights is None) == (weights[1].weights is None)
    if weights[0].weights is not None and weights[1].weights is not None:
        assert (weights[0].weights == weights[1].weights).all()
