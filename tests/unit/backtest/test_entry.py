"""Entries of a backtest result."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace import Event, Key, Label, Number, Pipeline
from tailrace.backtest.entry import Prices, entry
from tailrace.backtest.history.arrays import history
from tailrace.backtest.metrics import Prequential
from tailrace.datafiles.read import Columns, replay
from tailrace.monitoring.telemetry.energy import Energy


class Reading(Event):
    id: Key
    x: Number


def test_an_entry_is_figures_and_costs() -> None:
    """An entry has figures and windows of the events from `score_from` on, costs, and the source of the joules."""
    pipeline = Pipeline("readings", event=Reading, label=Label("big"))
    stream = history(replay([{"x": n, "big": n % 2} for n in range(10)], pipeline, Columns(label="big")), pipeline)
    scores = np.linspace(0, 1, 10, dtype=np.float32)[:, None]
    measure = Prequential(pipeline.task, score_from=4, windows=3)
    energy = Energy(3.6e6, "estimate")
    built = entry(
        "a", stream, scores, measure, Prices(0.2, 0.1), cpu_seconds=3_600, seconds=2.0, energy=energy, updates=7
    )
    assert (built.scored, built.updates, len(built.windows)) == (6, 7, 3)
    assert built.accuracy == measure.figures(scores, stream.targets).accuracy
    assert (built.cost, built.joules_from) == (pytest.approx(0.3), "estimate")
