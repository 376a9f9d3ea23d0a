"""The moving average of the parameters is exact, and a run releases it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.training_run import deep, trained
from torch import nn

from tailrace.declaration.training import Training
from tailrace.retrain.training.averaging import Average


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.1, 0.999))
def test_the_average_is_the_moving_average(values: list[float], decay: float) -> None:
    """The average follows the recursion of its definition, and swapping twice changes nothing."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average, expected = Average([parameter], decay), 0.0
    for n, value in enumerate(values, 1):
        parameter.data.fill_(value)
        average.update()
        rate = min(decay, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * value
    average.swap()
    assert float(parameter.detach()) == pytest.approx(expected, abs=1e-9)
    average.swap()
    assert float(parameter.detach()) == values[-1]


def test_the_average_is_released() -> None:
    """With a decay the run ends with the average, which is near the newest weights but not equal."""
    plain, averaged = deep(), deep()
    trained(plain, Training())
    trained(averaged, Training(ema=0.9))
    distance = (plain.head.weight - averaged.head.weight).detach().abs().max()
    assert 0 < float(distance) < 0.1
