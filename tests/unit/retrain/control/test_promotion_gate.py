"""The gate: paired losses, their interval, and who passes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tailrace.declaration.gate import Gate, Metric
from tailrace.declaration.task import Kind
from tailrace.errors import DeclarationError
from tailrace.inference.models.losses import losses
from tailrace.retrain.control.promotion_gate import compare

RANDOM = np.random.default_rng(7)


def binary(count: int) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities [count, 1] and labels drawn from them."""
    truth = RANDOM.uniform(0.02, 0.98, (count, 1)).astype(np.float32)
    return truth, (RANDOM.uniform(size=count) < truth[:, 0]).astype(np.float32)


def test_a_better_candidate_passes() -> None:
    """The true probabilities pass against a constant, and the verdict says by how much."""
    truth, labels = binary(2_000)
    verdict = compare(Gate(), Kind.BINARY, truth, np.full_like(truth, 0.5), labels)
    assert verdict.passed
    assert verdict.high is not None
    assert verdict.high < 0
    assert verdict.champion == pytest.approx(math.log(2), rel=1e-6)
    assert "better" in verdict.reason


def test_a_worse_candidate_is_refused() -> None:
    """A constant is refused against the true probabilities."""
    truth, labels = binary(2_000)
    verdict = compare(Gate(), Kind.BINARY, np.full_like(truth, 0.5), truth, labels)
    assert not verdict.passed
    assert verdict.low is not None
    assert verdict.low > 0


def test_the_same_model_passes() -> None:
    """A candidate as good as the champion passes: it knows newer data."""
    truth, labels = binary(200)
    verdict = compare(Gate(), Kind.BINARY, truth, truth, labels)
    assert verdict.passed
    assert (verdict.difference, verdict.low, verdict.high) == (0, 0, 0)


def test_without_a_champion_a_finite_candidate_passes() -> None:
    """The first release needs no comparison, not even examples."""
    verdict = compare(Gate(), Kind.BINARY, np.zeros((0, 1), np.float32), None, np.zeros(0, np.float32))
    assert verdict.passed
    assert verdict.candidate is None


def test_too_few_examples_never_replace_a_champion() -> None:
    """Below min_examples the champion stays."""
    truth, labels = binary(49)
    verdict = compare(Gate(), Kind.BINARY, truth, np.full_like(truth, 0.5), labels)
    assert not verdict.passed
    assert verdict.reason == "only 49 examples to judge by, 50 are needed"


def test_scores_that_are_not_finite_are_refused() -> None:
    """A candidate that says NaN is refused even when there is no champion."""
    truth, labels = binary(100)
    truth[3] = np.nan
    assert not compare(Gate(), Kind.BINARY, truth, None, labels).passed


def test_equal_candidates_are_refused_as_rarely_as_the_confidence_says() -> None:
    """Between two equally good candidates about 2.5 % of verdicts refuse at 95 % confidence."""
    refused = 0
    for _ in range(400):
        labels = (RANDOM.uniform(size=400) < 0.5).astype(np.float32)
        one, other = (RANDOM.uniform(0.3, 0.7, (400, 1)).astype(np.float32) for _ in range(2))
        refused += not compare(Gate(), Kind.BINARY, one, other, labels).passed
    assert 1 <= refused <= 25


@pytest.mark.parametrize(
    ("metric", "expected"), [("log_loss", -math.log(0.7)), ("brier", 0.09 + 0.04 + 0.01), ("accuracy", 0.0)]
)
def test_multiclass_losses(metric: Metric, expected: float) -> None:
    """Each metric on one row (0.2, 0.7, 0.1) whose class is 1."""
    scores, targets = np.array([[0.2, 0.7, 0.1]], np.float32), np.array([1], np.float32)
    assert losses(metric, Kind.MULTICLASS, scores, targets)[0] == pytest.approx(expected, abs=1e-6)


def test_a_certain_mistake_costs_a_bounded_loss() -> None:
    """Log-loss of probability 0 for what happened is finite."""
    assert losses("log_loss", Kind.BINARY, np.zeros((1, 1), np.float32), np.ones(1, np.float32))[0] < 14


def test_regression_is_judged_by_squared_error() -> None:
    """Without a declared metric a regression compares squared errors."""
    targets = RANDOM.normal(size=300).astype(np.float32)
    verdict = compare(Gate(), Kind.REGRESSION, targets[:, None], np.zeros((300, 1), np.float32), targets)
    assert (verdict.passed, verdict.metric, verdict.candidate) == (True, "squared_error", 0)


def test_a_metric_that_does_not_fit_the_label_is_refused() -> None:
    """log_loss cannot judge a regression, and the message names what can."""
    with pytest.raises(DeclarationError, match="use squared_error"):
        Gate("log_loss").metric_for(Kind.REGRESSION)


@pytest.mark.parametrize("wrong", [{"metric": "auc"}, {"confidence": 1.0}, {"min_examples": 1}])
def test_wrong_settings_are_refused_at_declaration(wrong: dict[str, object]) -> None:
    """Each wrong setting is named."""
    with pytest.raises(DeclarationError, match=next(iter(wrong))):
        Gate(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy"])
def test_the_loss_of_several_labels_is_the_mean_of_their_own(metric: Metric) -> None:
    """Each label of an event is judged as a binary one would be."""
    scores = RANDOM.uniform(0.01, 0.99, (50, 3)).astype(np.float32)
    flags = RANDOM.integers(0, 2, (50, 3)).astype(np.float32)
    each = [losses(metric, Kind.BINARY, scores[:, [k]], flags[:, k]) for k in range(3)]
    found = losses(metric, Kind.MULTILABEL, scores, flags)
    assert found == pytest.approx(np.mean(each, axis=0))
