"""Quality curves over event time."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace.declaration.task import Kind
from tailrace.monitoring.console.quality import POINTS, QualityCurves


def test_a_curve_keeps_its_sums_when_points_are_added_up() -> None:
    """A curve has at most POINTS points, however long it runs, and the mean over all examples stays exact."""
    quality = QualityCurves(Kind.REGRESSION)
    values = np.random.default_rng(1).random(5_000)
    for n, value in enumerate(values):
        scores = np.array([[np.sqrt(value)]], np.float32)
        quality.take(np.array([1000.0 + n]), {"live": scores}, np.zeros(1, np.float32))
    section = quality.section({"live": "live"})
    assert POINTS / 2 < len(section["at"]) <= POINTS
    assert quality.count("live") == 5_000
    newest = quality.newest("live", window=10_000)
    assert newest is not None
    assert newest == {"squared_error": pytest.approx(float(values.mean()), abs=1e-6)}
    assert section["models"][0]["curves"]["squared_error"][-1] == pytest.approx(0.5, abs=0.05)


def test_batches_make_no_difference() -> None:
    """One batch gives the same curve as the same examples one by one, whatever times they span."""
    rng = np.random.default_rng(2)
    times = np.sort(rng.uniform(1e9, 1e9 + 1e6, 3_000))
    scores, targets = rng.random((3_000, 1)).astype(np.float32), rng.integers(0, 2, 3_000).astype(np.float32)
    whole, single = QualityCurves(Kind.BINARY), QualityCurves(Kind.BINARY)
    whole.take(times, {"live": scores}, targets)
    for n in range(3_000):
        single.take(times[n : n + 1], {"live": scores[n : n + 1]}, targets[n : n + 1])
    one, other = (curves.section({"live": "live"}) for curves in (whole, single))
    assert one["at"] == other["at"]
    for metric in ("log_loss", "accuracy"):
        assert one["models"][0]["curves"][metric] == pytest.approx(other["models"][0]["curves"][metric], abs=2e-5)


def test_absurd_label_times_do_no_harm() -> None:
    """A label time far outside any calendar is moved to the end of the chart."""
    quality = QualityCurves(Kind.BINARY)
    scores, targets = np.full((3, 1), 0.5, np.float32), np.zeros(3, np.float32)
    quality.take(np.array([-1e300, 1e9, 1e300]), {"live": scores}, targets)
    assert quality.count("live") == 3
    assert max(quality.section({"live": "live"})["at"]) < 1e10
