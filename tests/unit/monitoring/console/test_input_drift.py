"""Per-feature drift as the console shows it."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tailrace.declaration.event import Event, Key
from tailrace.declaration.features import Category, Cyclic, Number
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.monitoring.console.input_drift import Shifts
from tailrace.retrain.control.drift import FAMILIAR, WINDOW


class Reading(Event, kw_only=True):
    """One feature of each kind."""

    id: Key
    x: Number
    hour: Annotated[float, Cyclic(24)]
    colour: Category


def inputs(rng: np.random.Generator, rows: int, mean: float = 0.0) -> Inputs:
    numbers = rng.normal(size=(rows, 3)).astype(np.float32)
    numbers[:, 0] += mean
    return Inputs(numbers, rng.integers(1, 5, (rows, 1)))


def test_the_shifted_feature_stands_first() -> None:
    """A feature whose mean moved passes its threshold, the others do not; a cyclic feature is one row."""
    rng, shifts = np.random.default_rng(3), Shifts(Features.of(Reading), ())
    shifts.see(inputs(rng, FAMILIAR * WINDOW))
    assert shifts.section()["rows"] == []
    shifts.see(inputs(rng, WINDOW))
    assert all(row["index"] < row["threshold"] for row in shifts.section()["rows"])
    shifts.see(inputs(rng, WINDOW, mean=2.0))
    section = shifts.section()
    assert section["rows"][0]["feature"] == "x"
    assert {row["feature"] for row in section["rows"]} == {"x", "hour", "colour"}
    assert section["rows"][0]["index"] > section["rows"][0]["threshold"]
    assert all(row["index"] < row["threshold"] for row in section["rows"][1:])
    assert section["seen"] == (FAMILIAR + 2) * WINDOW
