"""On River's generators, a smaller version of benchmarks/drift.py: drift triggers recover sooner, and keep quiet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from river.drift import ADWIN

sys.path.append(str(Path(__file__).parents[4]))
from benchmarks import drift
from tailrace.retrain.control.drift import DriftMonitor


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
def test_drift_recovers_before_the_schedule() -> None:
    """After an abrupt change the model that drift retrains is within a point of what it was in fewer labels than the
    one that is retrained every 5,000 labels alone."""
    alone = drift.recovery("SEA", 1, drift.SCHEDULED, after=9_000)
    watched = drift.recovery("SEA", 1, drift.WATCHED, after=9_000)
    assert watched.broken < watched.before - 0.1, "the change hurts"
    assert watched.labels is not None
    assert watched.labels < (alone.labels or 9_000)
    assert watched.seen is not None
    assert watched.seen <= 500


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("kind", ["SEA", "rare"])
def test_no_run_without_drift(kind: str, learning: bool) -> None:
    """In 30,000 labels that do not change, common or one in a hundred, nothing is retrained for drift: neither with a
    trained model nor while it still learns."""
    assert drift.alarms(kind, 1, 30_000, learning=learning) == (0, 30_000)


def test_it_is_as_quick_as_rivers_adwin_and_quieter() -> None:
    """Errors from 10 % to 30 %: seen within 150 labels of where River's ADWIN of the same delta sees it; but of a fall,
    which ADWIN signals too, nothing is said."""
    random = np.random.default_rng(0)
    errors = (random.random(8_000) < np.repeat([0.3, 0.1, 0.3], [2_000, 4_000, 2_000])).astype(float)
    adwin, monitor = ADWIN(delta=1e-4), DriftMonitor(false_alarms=1e-4, effect=0.1, shift=None)
    by_adwin, by_monitor = [], []
    for n, error in enumerate(errors):
        adwin.update(error)
        if adwin.drift_detected:
            by_adwin.append(n)
        monitor.update(errors[n : n + 1])
        if monitor.signals.loss is not None:
            by_monitor.append(n)
            monitor.considered()
    assert any(2_000 <= n < 3_000 for n in by_adwin)
    assert len(by_monitor) == 1
    assert by_monitor[0] == pytest.approx(next(n for n in by_adwin if n >= 6_000), abs=150)
