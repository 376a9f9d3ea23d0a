"""Online target encoding: rates, their decay, and the linear model that uses them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.columns import Indices
from tailrace.inference.models.tabular.linear import Linear
from tailrace.inference.models.tabular.target_encoding import SMOOTHING, TargetEncoding

BINARY = Task(Kind.BINARY)
TASKS = [BINARY, Task(Kind.MULTICLASS, ("a", "b")), Task(Kind.REGRESSION), Task(Kind.MULTILABEL, ("a", "b"))]
ONE = np.ones((100, 1), np.float32)


def places(place: int, rows: int = 100) -> Indices:
    return np.full((rows, 1), place)


@pytest.mark.parametrize("task", TASKS)
def test_what_was_never_seen_says_nothing(task: Task) -> None:
    """The encoding is 0 before any label and for a value without labels."""
    encoding = TargetEncoding([3], task)
    assert np.allclose(encoding.rates(slice(None)), 0.0, atol=1e-6)
    encoding.add(places(0), np.ones((100, task.outputs), np.float32))
    assert np.allclose(encoding.rates(places(2)), 0.0, atol=1e-6)


def test_a_rate_is_the_difference_of_smoothed_log_odds() -> None:
    """Two values with opposite labels have opposite log-odds, smoothed by SMOOTHING rows of even odds."""
    encoding = TargetEncoding([2], BINARY)
    both = np.concatenate((places(0), places(1)))
    encoding.add(both, np.concatenate((ONE, 0 * ONE)))
    applying, other = encoding.rates(slice(None))[:, 0]
    assert applying == pytest.approx(math.log((100 / 0.5 + SMOOTHING) / SMOOTHING), rel=1e-4)
    assert other == pytest.approx(-applying, rel=1e-4)


def test_a_rate_fades() -> None:
    """The encoding of a value returns to 0 after many rows of other values."""
    encoding = TargetEncoding([2], BINARY)
    encoding.add(places(0), ONE)
    encoding.add(places(1), 0 * ONE)
    assert encoding.rates(places(0, 1)) > 1.0
    for _ in range(100):
        encoding.add(places(1), 0 * ONE)
    assert encoding.rates(places(0, 1)) == pytest.approx(0.0, abs=0.1)


def test_what_is_served_is_rate_times_weight() -> None:
    """The encoder adds to the logits of a row the sum over its columns of rate times weight."""
    encoding = TargetEncoding([2, 3], BINARY)
    encoding.add(np.tile(np.array([[0, 2]]), (100, 1)), ONE)
    encoding.add(np.tile(np.array([[1, 3]]), (100, 1)), 0 * ONE)
    encoding.weights.copy_(torch.tensor([[0.5], [2.0]]))
    encoding.refresh()
    rates = encoding.rates(slice(None))[:, 0]
    row = torch.tensor([[0, 3]])
    assert float(encoding(row)) == pytest.approx(0.5 * rates[0] + 2.0 * rates[3], rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_linear_part_learns_what_a_value_says_of_late(task: Task) -> None:
    """The linear model learns to predict by one column's value, and follows when its meaning is reversed."""
    linear = Linear(0, 0, [2], task)
    random = np.random.default_rng(0)
    scores = []
    for turned in (0, 1):
        for _ in range(40):
            found = torch.from_numpy(random.integers(0, 2, (50, 1)))
            targets = (found[:, 0] ^ turned).float()
            if task.kind is Kind.MULTILABEL:
                targets = torch.stack((targets, torch.zeros(50)), 1)
            with torch.no_grad():
                linear.absorb(torch.empty(50, 0), found, targets, torch.zeros(task.outputs))
        said = linear(torch.empty(2, 0), torch.tensor([[0], [1]])).detach()
        upper = said[:, 1] - said[:, 0] if task.kind is Kind.MULTICLASS else said[:, 0]
        scores.append(float(upper[1] - upper[0]))
    assert scores[0] > 0.1
    assert scores[1] < -0.1
