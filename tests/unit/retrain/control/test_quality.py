"""The quality of what was served: over the newest labels, for each kind of task."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace.declaration.task import Kind
from tailrace.inference.models.metrics import calibration_error
from tailrace.retrain.control.quality import ServedQuality


def test_yes_and_no() -> None:
    """Log-loss, accuracy and calibration, of the newest labels alone."""
    quality = ServedQuality(Kind.BINARY, over=4)
    assert quality.figures() == {}
    quality.take(np.full((10, 1), 0.01, np.float32), np.ones(10, np.float32))
    quality.take(np.array([[0.75], [0.75], [0.75], [0.25]], np.float32), np.array([1, 1, 0, 0], np.float32))
    figures = quality.figures()
    assert figures["examples"] == 4
    assert figures["accuracy"] == 0.75
    assert figures["log_loss"] == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4)
    assert figures["calibration_error"] == pytest.approx((abs(3 * 0.75 - 2) + 0.25) / 4)


def test_classes_are_judged_by_the_most_probable_one() -> None:
    """Two of three are right, and were said to be so with 0.8."""
    quality = ServedQuality(Kind.MULTICLASS)
    scores = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], np.float32)
    quality.take(scores, np.array([0, 1, 0], np.float32))
    assert quality.figures()["accuracy"] == pytest.approx(2 / 3)
    assert quality.figures()["calibration_error"] == pytest.approx(0.8 - 2 / 3, abs=1e-6)


def test_labels_are_judged_each() -> None:
    """With several labels each label's probability counts."""
    quality = ServedQuality(Kind.MULTILABEL, over=2)
    quality.take(np.array([[0.9, 0.1]] * 5, np.float32), np.array([[1, 0]] * 5, np.float32))
    figures = quality.figures()
    assert (figures["examples"], figures["accuracy"]) == (2, 1.0)
    assert figures["calibration_error"] == pytest.approx(0.1, abs=1e-6)


def test_values_have_an_error() -> None:
    """Regression has the mean squared error and no other figure."""
    quality = ServedQuality(Kind.REGRESSION)
    quality.take(np.array([[1.0], [4.0]], np.float32), np.array([1.0, 2.0], np.float32))
    assert quality.figures() == {"examples": 2, "squared_error": 2.0}


def test_perfect_calibration_is_zero() -> None:
    """Probabilities that match the frequencies have no error; no predictions have none either."""
    said = np.repeat([0.05, 0.55, 1.0], 20)
    true = np.concatenate((np.arange(20) < 1, np.arange(20) < 11, np.ones(20))).astype(float)
    assert calibration_error(said, true) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(np.empty(0), np.empty(0)) == 0.0
