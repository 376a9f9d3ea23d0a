"""The drift monitor: rises and shifts are seen soon, falls and chance are not, and batches make no difference."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tailrace.declaration.facts import DriftSignals
from tailrace.inference.models.encoding import Inputs
from tailrace.retrain.control.drift import DriftMonitor
from tailrace.retrain.control.drift_level import Losses
from tailrace.retrain.control.input_drift import FAMILIAR, WINDOW, stability_index

BATCH = 500


def monitor(*, inputs: bool = True, names: tuple[str, ...] | None = None) -> DriftMonitor:
    return DriftMonitor(false_alarms=1e-4, effect=0.1, shift=0.25 if inputs else None, names=names)


def errors(rate: float | NDArray[np.float64], count: int, seed: int = 0) -> Losses:
    """Log-losses of a model that is sure, and wrong at this rate."""
    wrong = np.random.default_rng(seed).random(count) < rate
    return np.where(wrong, 2.3, 0.1)


def fed(watch: DriftMonitor, losses: Losses, inputs: Inputs | None = None) -> DriftSignals:
    for start in range(0, len(losses), BATCH):
        rows = slice(start, start + BATCH)
        watch.update(losses[rows], inputs.take(rows) if inputs else None)
    return watch.signals


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_is_seen_and_dated(seed: int) -> None:
    """Errors go from 10 % to 30 %: signalled within 500 labels, with the levels and about where it began."""
    signals = fed(monitor(), np.concatenate((errors(0.1, 5_000, seed), errors(0.3, 500, seed + 100))))
    assert signals.loss is not None
    assert signals.loss.before == pytest.approx(0.1 + 2.2 * 0.1, abs=0.05)
    assert signals.loss.after == pytest.approx(0.1 + 2.2 * 0.3, abs=0.15)
    assert signals.loss.statistic > signals.loss.threshold
    assert signals.changed == pytest.approx(500, abs=120)


def test_improvement_is_no_drift() -> None:
    """A model that learns, suddenly or slowly, is never signalled; a rise from its best level is."""
    watch = monitor()
    falling = 0.05 + 0.4 * np.exp(-np.arange(20_000) / 4_000)
    signals = fed(watch, np.concatenate((errors(0.5, 3_000), errors(falling, 20_000, 1))))
    assert signals == DriftSignals()
    assert fed(watch, errors(0.2, 1_000, 2)).loss is not None


@pytest.mark.parametrize("kind", ["common", "rare", "very rare", "heavy tails", "constant", "rush hours"])
@pytest.mark.parametrize("seed", range(2))
def test_chance_is_no_drift(kind: str, seed: int) -> None:
    """In 100,000 labels that do not change nothing is signalled: balanced or rare classes, infinite variance, losses
    that are all the same, losses that are alike among neighbours."""
    random = np.random.default_rng(seed)
    cases: dict[str, Callable[[], np.ndarray]] = {
        "common": lambda: errors(0.2, 100_000, seed),
        "rare": lambda: np.where(random.random(100_000) < 0.01, 4.6, 0.01),
        "very rare": lambda: np.where(random.random(100_000) < 0.001, 6.9, 0.001),
        "heavy tails": lambda: random.pareto(1.5, 100_000),
        "constant": lambda: np.full(100_000, 0.3),
        "rush hours": lambda: np.repeat(random.exponential(0.3, 12_500), 8),
    }
    assert fed(monitor(inputs=False), cases[kind]()) == DriftSignals()


def test_a_trifle_is_no_drift_however_certain() -> None:
    """A rise by a twentieth of a standard deviation is far beyond chance in 100,000 labels, and does not matter."""
    random = np.random.default_rng(0)
    losses = random.exponential(0.4, 100_000)
    assert fed(monitor(), np.concatenate((losses, losses + 0.02))).loss is None


def test_a_rise_is_told_until_a_run_considers_it_and_dated_on() -> None:
    """A signal stays; a run clears it, and what was learned of the change is remembered."""
    watch = monitor()
    first = fed(watch, np.concatenate((errors(0.1, 5_000), errors(0.4, 400, 1))))
    later = fed(watch, errors(0.4, 300, 2))
    assert first.loss is not None
    assert later.loss is not None
    assert later.loss.labels == first.loss.labels + 300 == later.changed
    assert later.loss.statistic == first.loss.statistic
    watch.considered()
    assert watch.signals == DriftSignals(changed=later.changed, learned=later.changed)
    assert fed(watch, errors(0.4, 20_000, 3)).loss is None, "the same rise is not told twice"


def test_a_rise_right_after_a_run_is_seen() -> None:
    """The reference losses outlive a run, so that a change at the time of the run is detected too."""
    watch = monitor()
    fed(watch, errors(0.1, 5_000))
    watch.considered()
    assert fed(watch, errors(0.3, 500, 1)).loss is not None


def test_labels_of_what_the_old_release_scored_are_no_new_rise() -> None:
    """Labels are late: after a new release come some more of the old one's losses, high as they were, then lower ones.
    Neither is signalled, and a rise from the new level is."""
    watch = monitor()
    fed(watch, np.concatenate((errors(0.1, 5_000), errors(0.4, 400, 1))))
    watch.considered()
    assert fed(watch, np.concatenate((errors(0.4, 1_500, 2), errors(0.15, 3_000, 3)))).loss is None
    assert fed(watch, errors(0.4, 500, 4)).loss is not None


def test_losses_that_are_no_numbers_are_left_out() -> None:
    """One NaN or infinity neither alarms nor makes deaf."""
    watch = monitor()
    losses = errors(0.1, 5_000)
    losses[[3, 2_000]], losses[[7, 4_000]] = np.nan, np.inf
    assert fed(watch, losses).loss is None
    assert fed(watch, errors(0.3, 500, 1)).loss is not None


def test_batches_make_no_difference() -> None:
    """One by one or all at once: the same signals."""
    random = np.random.default_rng(4)
    losses = np.concatenate((errors(0.1, 6_000), errors(0.4, 1_000, 1)))
    numbers = random.normal(size=(7_000, 3)).astype(np.float32)
    numbers[6_000:] += 2
    inputs = Inputs(numbers, random.integers(0, 30, (7_000, 1)))
    whole, pieces = monitor(), monitor()
    whole.update(losses, inputs)
    start = 0
    while start < len(losses):
        rows = slice(start, start + int(random.integers(1, 700)))
        pieces.update(losses[rows], inputs.take(rows))
        start = rows.stop
    assert whole.signals == pieces.signals
    assert whole.signals.loss is not None
    assert {change.what for change in whole.signals.features} == {"column 0", "column 1", "column 2"}


def columns(count: int, seed: int) -> Inputs:
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(count, 4)).astype(np.float32)
    numbers[:, 2] = np.floor(random.exponential(0.5, count))  # mostly 0
    numbers[random.random(count) < 0.1, 3] = np.nan
    return Inputs(numbers, np.column_stack((random.zipf(1.5, count) % 1_000, random.integers(0, 1_024, count))))


def test_stationary_inputs_do_not_shift() -> None:
    """Normal, discrete and missing numbers, common and unique categories: no alarm in 200,000 labels."""
    inputs = columns(200_000, 1)
    assert fed(monitor(), np.zeros(200_000), inputs).features == ()


@pytest.mark.parametrize("numbers", [[3e38, -3e38], [0.0], [np.nan], [1.0, np.nan], []])
def test_strange_columns_are_no_shift(numbers: list[float]) -> None:
    """The largest numbers, constants, columns of nothing, no columns at all."""
    column = np.resize(np.array(numbers, np.float32), (8_000, 1 if numbers else 0))
    inputs = Inputs(column, np.zeros((8_000, 0 if numbers else 1), np.int64))
    assert fed(monitor(), np.zeros(8_000), inputs).features == ()
    assert fed(monitor(), np.zeros(8_000), Inputs(column[:, :0], np.zeros((8_000, 0), np.int64))).features == ()


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("mean", lambda n, c: n.__setitem__((slice(None), 0), n[:, 0] + 1)),
        ("spread", lambda n, c: n.__setitem__((slice(None), 1), n[:, 1] * 3)),
        ("count", lambda n, c: n.__setitem__((slice(None), 2), n[:, 2] + 1)),
        ("missing", lambda n, c: n.__setitem__((slice(0, None, 2), 3), np.nan)),
        ("kind", lambda n, c: c.__setitem__((slice(None), 0), 900 + c[:, 0] % 7)),
    ],
)
def test_a_shift_is_seen_and_named(column: str, change: object) -> None:
    """Another mean, spread, count, share of missing ones, other categories: each is signalled by the column's name,
    alone, within two windows."""
    names = ("mean", "spread", "count", "missing", "kind", "id")
    watch = monitor(names=names)
    fed(watch, np.zeros(5_000), columns(5_000, 1))
    shifted = columns(2 * WINDOW, 2)
    change(shifted.numbers, shifted.categories)  # type: ignore[operator]
    signals = fed(watch, np.zeros(2 * WINDOW), shifted)
    assert [found.what for found in signals.features] == [column]
    assert signals.features[0].statistic >= 0.25


def test_what_comes_back_is_no_news() -> None:
    """Day and night alternate: the first night may be news, later ones are not."""
    watch, alarms = monitor(), []
    for day in range(10):
        for night in (0, 1):
            inputs = columns(6_000, 2 * day + night)
            inputs.numbers[:, 0] += 3 * night
            alarms.append(bool(fed(watch, np.zeros(6_000), inputs).features))
            watch.considered()
    assert alarms == [False, True, *[False] * 18]


def test_what_is_new_every_day_is_usual() -> None:
    """Weather: each thousand labels have a mean of their own, unlike all before. A few alarms at most in 100 of them,
    and a real shift is still seen."""
    watch, random, alarms = monitor(), np.random.default_rng(5), 0
    for day in range(100):
        inputs = columns(WINDOW, day)
        inputs.numbers[:, 0] = inputs.numbers[:, 0] * 0.3 + random.normal()
        alarms += bool(fed(watch, np.zeros(WINDOW), inputs).features)
        watch.considered()
    assert alarms <= 5
    inputs.numbers[:, 0] += 20
    assert [found.what for found in fed(watch, np.zeros(WINDOW), inputs).features] == ["column 0"]


def test_remembered_inputs_are_no_news() -> None:
    """Inputs that earlier runs have considered are known."""
    watch = monitor()
    shifted = columns(5_000, 2)
    shifted.numbers[:, 0] += 3
    watch.remember(columns(5_000, 1))
    watch.remember(shifted)
    assert fed(watch, np.zeros(5_000), shifted).features == ()


def test_the_stability_index_is_what_the_books_say() -> None:
    """PSI of (0.5, 0.5) and (0.9, 0.1) is 0.4 ln 1.8 + (-0.4) ln 0.2 = 0.8789."""
    index = stability_index(np.array([[5e6, 5e6]]), np.array([[9e6, 1e6]]))
    assert index[0] == pytest.approx(0.8789, abs=1e-4)


def test_watching_is_cheap() -> None:
    """About 3 us a label with 25 columns (here at most 30, whatever else the machine does)."""
    random = np.random.default_rng(0)
    losses, inputs = random.exponential(0.4, 50_000), columns(50_000, 1)
    watch = monitor()
    began = time.thread_time()
    fed(watch, losses, inputs)
    assert (time.thread_time() - began) / len(losses) < 30e-6


def test_a_feature_named_loss_is_not_the_loss() -> None:
    """The levels of features and of the loss are separate: a feature named `loss` keeps its own stability index."""
    watch = monitor(names=("loss",))
    rows = (FAMILIAR + 1) * WINDOW
    numbers = np.random.default_rng(1).normal(size=(rows, 1)).astype(np.float32)
    fed(watch, errors(0.1, rows), Inputs(numbers, np.zeros((rows, 0), np.int64)))
    assert watch.loss_level is not None
    assert set(watch.levels) == {"loss"}
    assert watch.levels["loss"].threshold >= 0.25  # the index, not the rise of the loss
    assert watch.loss_level.threshold < 0.25
