"""Prequential figures: against River, against brute force, and what has no meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics

from tailrace.backtest.metrics import Prequential, figures
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.metrics import auc

BINARY, REGRESSION = Task(Kind.BINARY), Task(Kind.REGRESSION)
THREE = Task(Kind.MULTICLASS, ("a", "b", "c"))

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 60)


def drawn(task: Task, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, certain ones among them, and labels."""
    random = np.random.default_rng(seed)
    if task.kind is Kind.BINARY:
        return random.integers(0, 11, (rows, 1)).astype(np.float32) / 10, random.integers(0, 2, rows).astype(np.float32)
    raw = random.integers(1, 9, (rows, 3)).astype(np.float32)
    return raw / raw.sum(axis=1, keepdims=True), random.integers(0, 3, rows).astype(np.float32)


@given(seeds, sizes)
def test_binary_figures_are_rivers(seed: int, rows: int) -> None:
    """Accuracy, kappa and log-loss (away from certainty) are those of River."""
    scores, targets = drawn(BINARY, seed, rows)
    scores = scores.clip(0.1, 0.9)
    accuracy, kappa, loss = metrics.Accuracy(), metrics.CohenKappa(), metrics.LogLoss()
    for (score,), target in zip(scores.tolist(), targets.tolist(), strict=True):
        accuracy.update(bool(target), score > 0.5)
        kappa.update(bool(target), score > 0.5)
        loss.update(bool(target), score)
    found = figures(BINARY, scores, targets)
    assert found.scored == rows
    assert found.accuracy == pytest.approx(accuracy.get())
    assert found.log_loss == pytest.approx(loss.get(), rel=1e-6)
    assert found.kappa is None or found.kappa == pytest.approx(kappa.get())


@given(seeds, sizes)
def test_multiclass_figures_are_rivers(seed: int, rows: int) -> None:
    """The same with three classes."""
    scores, targets = drawn(THREE, seed, rows)
    accuracy, kappa, loss = metrics.Accuracy(), metrics.CohenKappa(), metrics.CrossEntropy()
    for row, target in zip(scores.tolist(), targets.astype(int).tolist(), strict=True):
        guessed = int(np.argmax(row))
        accuracy.update(target, guessed)
        kappa.update(target, guessed)
        loss.update(target, dict(enumerate(row)))
    found = figures(THREE, scores, targets)
    assert found.accuracy == pytest.approx(accuracy.get())
    assert found.log_loss == pytest.approx(loss.get(), rel=1e-5)
    assert found.kappa is None or found.kappa == pytest.approx(kappa.get())


@given(seeds, st.integers(2, 60))
def test_regression_figures_are_rivers(seed: int, rows: int) -> None:
    """Mean absolute error, root of the mean squared one and R2 are those of River."""
    random = np.random.default_rng(seed)
    truth = random.normal(5, 2, rows).astype(np.float32)
    given_ = (truth + random.normal(0, 1, rows)).astype(np.float32)
    mae, rmse, r2 = metrics.MAE(), metrics.RMSE(), metrics.R2()
    for target, value in zip(truth.tolist(), given_.tolist(), strict=True):
        for metric in (mae, rmse, r2):
            metric.update(target, value)
    found = figures(REGRESSION, given_[:, None], truth)
    assert found.mean_absolute_error == pytest.approx(mae.get(), rel=1e-5)
    assert found.rmse == pytest.approx(rmse.get(), rel=1e-5)
    assert found.r2 == pytest.approx(r2.get(), rel=1e-4, abs=1e-4)
    assert found.accuracy is found.auc is found.log_loss is None


@given(seeds, sizes)
def test_auc_counts_pairs(seed: int, rows: int) -> None:
    """AUC is the share of (positive, negative) pairs in the right order, ties counting half; classes are averaged."""

    def pairs(positive: np.ndarray, score: np.ndarray) -> float | None:
        ahead, behind = score[positive], score[~positive]
        if not len(ahead) or not len(behind):
            return None
        return float(np.mean([(a > b) + (a == b) / 2 for a in ahead for b in behind]))

    scores, targets = drawn(BINARY, seed, rows)
    expected = pairs(targets == 1, scores[:, 0])
    assert auc(targets == 1, scores[:, 0]) == (None if expected is None else pytest.approx(expected))
    scores, targets = drawn(THREE, seed, rows)
    each = [area for k in range(3) if (area := pairs(targets == k, scores[:, k])) is not None]
    found = figures(THREE, scores, targets).auc
    assert found == (pytest.approx(np.mean(each)) if each else None)


@given(seeds, st.integers(1, 200), st.integers(0, 220), st.integers(1, 60))
def test_windows_divide_what_is_scored(seed: int, rows: int, score_from: int, windows: int) -> None:
    """Windows are as equal as can be, follow one another, and their weighted mean is the figure of the whole."""
    scores, targets = drawn(BINARY, seed, rows)
    targets[np.random.default_rng(seed).uniform(size=rows) < 0.3] = np.nan
    measure = Prequential(BINARY, score_from, windows)
    whole, curve = measure.figures(scores, targets), measure.curve(np.arange(rows, dtype=np.float64), scores, targets)
    assert len(curve) == min(windows, max(0, rows - score_from))
    assert sum(window.scored for window in curve) == whole.scored == np.isfinite(targets[score_from:]).sum()
    widths = [window.end - window.start for window in curve]
    assert not widths or max(widths) - min(widths) <= 1
    if whole.log_loss is not None:
        total = sum(window.scored * (window.log_loss or 0) for window in curve)
        assert total / whole.scored == pytest.approx(whole.log_loss)


def test_one_certain_mistake_does_not_decide() -> None:
    """The loss of a probability of nothing is bounded, as in the gate."""
    found = figures(BINARY, np.zeros((1, 1), np.float32), np.ones(1, np.float32))
    assert found.log_loss == pytest.approx(-math.log(1e-6))


def test_what_has_no_meaning_is_null() -> None:
    """No rows, one class, targets that do not vary, scores that are not finite: None, never NaN."""
    nothing = figures(BINARY, np.empty((0, 1), np.float32), np.empty(0, np.float32))
    assert nothing.scored == 0
    assert nothing.accuracy is None
    one = figures(BINARY, np.full((3, 1), 0.9, np.float32), np.ones(3, np.float32))
    assert (one.auc, one.kappa, one.accuracy) == (None, None, 1.0)
    assert figures(REGRESSION, np.zeros((2, 1), np.float32), np.zeros(2, np.float32)).r2 is None
    broken = figures(BINARY, np.array([[np.nan], [0.5]], np.float32), np.ones(2, np.float32))
    assert (broken.scored, broken.accuracy, broken.log_loss) == (2, None, None)


def test_windows_of_a_regression() -> None:
    """A curve of values shows the mean absolute error; a window without labels shows nothing."""
    scores, targets = np.zeros((4, 1), np.float32), np.array([1, 3, np.nan, np.nan], np.float32)
    first, second = Prequential(REGRESSION, windows=2).curve(np.arange(4.0), scores, targets)
    assert (first.mean_absolute_error, first.accuracy, first.scored) == (2.0, None, 2)
    assert (second.mean_absolute_error, second.scored) == (None, 0)


def test_figures_of_several_labels_are_the_means_of_their_own() -> None:
    """Where a label has no AUC, because it always applies, it is left out of the mean."""
    random = np.random.default_rng(4)
    scores = random.uniform(0.1, 0.9, (80, 3)).astype(np.float32)
    flags = random.integers(0, 2, (80, 3)).astype(np.float32)
    flags[:, 2] = 1
    found = figures(Task(Kind.MULTILABEL, ("a", "b", "c")), scores, flags)
    each = [figures(BINARY, scores[:, [k]], flags[:, k]) for k in range(3)]
    assert found.scored == 80
    assert found.accuracy == pytest.approx(np.mean([one.accuracy for one in each]))
    assert found.log_loss == pytest.approx(np.mean([one.log_loss for one in each]))
    assert found.auc == pytest.approx(np.mean([one.auc for one in each[:2]]))
