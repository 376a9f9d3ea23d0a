"""The drift table of the console."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tailrace.declaration.event import Event, Key
from tailrace.declaration.features import Category, Cyclic, Number
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.monitoring.console.drift_table import DriftTable
from tailrace.retrain.control.input_drift import FAMILIAR, WINDOW


class Reading(Event):
    """One feature of each kind."""

    id: Key
    x: Number
    hour: Annotated[float, Cyclic(24)]
    colour: Category


def inputs(rng: np.random.Generator, rows: int, mean: float = 0.0) -> Inputs:
    """Random inputs; `mean` is that of the first feature."""
    numbers = rng.normal(size=(rows, 3)).astype(np.float32)
    numbers[:, 0] += mean
    return Inputs(numbers, rng.integers(1, 5, (rows, 1)))


def test_the_drifted_feature_comes_first() -> None:
    """A feature whose mean moved passes its threshold, the others do not; a cyclic feature is one row."""
    rng, table = np.random.default_rng(3), DriftTable(Features.of(Reading), ())
    table.take(inputs(rng, FAMILIAR * WINDOW))
    assert table.section()["rows"] == []
    table.take(inputs(rng, WINDOW))
    assert all(row["index"] < row["threshold"] for row in table.section()["rows"])
    table.take(inputs(rng, WINDOW, mean=2.0))
    section = table.section()
    assert section["rows"][0]["feature"] == "x"
    assert {row["feature"] for row in section["rows"]} == {"x", "hour", "colour"}
    assert section["rows"][0]["index"] > section["rows"][0]["threshold"]
    assert all(row["index"] < row["threshold"] for row in section["rows"][1:])
    assert section["seen"] == (FAMILIAR + 2) * WINDOW
