"""Prequential figures: compared with River and with brute force, and undefined figures."""

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
    """Random labels, and scores with ties and with probabilities of 0 and 1."""
    random = np.random.default_rng(seed)
    if task.kind is Kind.BINARY:
        return random.integers(0, 11, (rows, 1)).astype(np.float32) / 10, random.integers(0, 2, rows).astype(np.float32)
    raw = random.integers(1, 9, (rows, 3)).astype(np.float32)
    return raw / raw.sum(axis=1, keepdims=True), random.integers(0, 3, rows).astype(np.float32)


@given(seeds, sizes)
def test_binary_figures_are_rivers(seed: int, rows: int) -> None:
    """Accuracy, kappa and log-loss of a binary task equal those of River for probabilities in [0.1, 0.9]."""
    scores, targets = drawn(BINARY, seed, rows)
    scores = scores.clip(0.1, 0.9)
    accuracy, kappa, loss = metrics.Accuracy(), metrics.CohenKappa(), metrics.LogLoss()
    for (score,), target in zip(scores.tolist(), targets.tolist(), strict=True):
        accuracy.update(bool(target), score > 0.5)
        kappa.update(bool(target), score > 0.5)
        loss.update(bool(target), score)
    result = figures(BINARY, scores, targets)
    assert result.scored == rows
    assert result.accuracy == pytest.approx(accuracy.get())
    assert result.log_loss == pytest.approx(loss.get(), rel=1e-6)
    assert result.kappa is None or result.kappa == pytest.approx(kappa.get())


@given(seeds, sizes)
def test_multiclass_figures_are_rivers(seed: int, rows: int) -> None:
    """Accuracy, kappa and log-loss of three classes equal those of River."""
    scores, targets = drawn(THREE, seed, rows)
    accuracy, kappa, loss = metrics.Accuracy(), metrics.CohenKappa(), metrics.CrossEntropy()
    for row, target in zip(scores.tolist(), targets.astype(int).tolist(), strict=True):
        guessed = int(np.argmax(row))
        accuracy.update(target, guessed)
        kappa.update(target, guessed)
        loss.update(target, dict(enumerate(row)))
    result = figures(THREE, scores, targets)
    assert result.accuracy == pytest.approx(accuracy.get())
    assert result.log_loss == pytest.approx(loss.get(), rel=1e-5)
    assert result.kappa is None or result.kappa == pytest.approx(kappa.get())


@given(seeds, st.integers(2, 60))
def test_regression_figures_are_rivers(seed: int, rows: int) -> None:
    """Mean absolute error, root of the mean squared error and R2 equal those of River."""
    random = np.random.default_rng(seed)
    truth = random.normal(5, 2, rows).astype(np.float32)
    predicted = (truth + random.normal(0, 1, rows)).astype(np.float32)
    mae, rmse, r2 = metrics.MAE(), metrics.RMSE(), metrics.R2()
    for target, value in zip(truth.tolist(), predicted.tolist(), strict=True):
        for metric in (mae, rmse, r2):
            metric.update(target, value)
    result = figures(REGRESSION, predicted[:, None], truth)
    assert result.mean_absolute_error == pytest.approx(mae.get(), rel=1e-5)
    assert result.rmse == pytest.approx(rmse.get(), rel=1e-5)
    assert result.r2 == pytest.approx(r2.get(), rel=1e-4, abs=1e-4)
    assert result.accuracy is result.auc is result.log_loss is None


@given(seeds, sizes)
def test_auc_counts_pairs(seed: int, rows: int) -> None:
    """AUC is the share of (positive, negative) pairs in the right order, ties counting half, averaged over classes."""

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
    result = figures(THREE, scores, targets).auc
    assert result == (pytest.approx(np.mean(each)) if each else None)


@given(seeds, st.integers(1, 200), st.integers(0, 220), st.integers(1, 60))
def test_windows_partition_the_scored_events(seed: int, rows: int, score_from: int, windows: int) -> None:
    """Windows are consecutive, differ by at most one event, and their weighted mean is the figure of all events."""
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


def test_the_log_loss_of_an_event_is_bounded() -> None:
    """An outcome of probability 0 costs as much as one of probability 1e-6, as in the gate."""
    result = figures(BINARY, np.zeros((1, 1), np.float32), np.ones(1, np.float32))
    assert result.log_loss == pytest.approx(-math.log(1e-6))


def test_undefined_figures_are_none() -> None:
    """Without rows, with one class, constant targets or scores that are not finite, figures are None and never NaN."""
    nothing = figures(BINARY, np.empty((0, 1), np.float32), np.empty(0, np.float32))
    assert nothing.scored == 0
    assert nothing.accuracy is None
    one = figures(BINARY, np.full((3, 1), 0.9, np.float32), np.ones(3, np.float32))
    assert (one.auc, one.kappa, one.accuracy) == (None, None, 1.0)
    assert figures(REGRESSION, np.zeros((2, 1), np.float32), np.zeros(2, np.float32)).r2 is None
    broken = figures(BINARY, np.array([[np.nan], [0.5]], np.float32), np.ones(2, np.float32))
    assert (broken.scored, broken.accuracy, broken.log_loss) == (2, None, None)


def test_windows_of_a_regression() -> None:
    """Windows of a regression have the mean absolute error, or None without labels."""
    scores, targets = np.zeros((4, 1), np.float32), np.array([1, 3, np.nan, np.nan], np.float32)
    first, second = Prequential(REGRESSION, windows=2).curve(np.arange(4.0), scores, targets)
    assert (first.mean_absolute_error, first.accuracy, first.scored) == (2.0, None, 2)
    assert (second.mean_absolute_error, second.scored) == (None, 0)


def test_figures_of_several_labels_are_means() -> None:
    """Multi-label figures are means over labels; a label whose AUC is undefined is left out of that mean."""
    random = np.random.default_rng(4)
    scores = random.uniform(0.1, 0.9, (80, 3)).astype(np.float32)
    flags = random.integers(0, 2, (80, 3)).astype(np.float32)
    flags[:, 2] = 1
    result = figures(Task(Kind.MULTILABEL, ("a", "b", "c")), scores, flags)
    each = [figures(BINARY, scores[:, [k]], flags[:, k]) for k in range(3)]
    assert result.scored == 80
    assert result.accuracy == pytest.approx(np.mean([one.accuracy for one in each]))
    assert result.log_loss == pytest.approx(np.mean([one.log_loss for one in each]))
    assert result.auc == pytest.approx(np.mean([one.auc for one in each[:2]]))
