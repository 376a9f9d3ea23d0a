"""Area under the ROC curve and calibration error, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.inference.models.metrics import auc, calibration_error

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 60)


@given(seeds, sizes)
def test_calibration_error_by_hand(seed: int, rows: int) -> None:
    """The error is the weighted gap between mean probability and share of correct examples, bin by bin."""
    random = np.random.default_rng(seed)
    stated, correct = random.uniform(size=rows).astype(np.float32), random.integers(0, 2, rows).astype(bool)
    stated[0] = 1.0
    expected = 0.0
    for k in range(15):
        inside = [i for i in range(rows) if min(int(float(stated[i]) * 15), 14) == k]
        if inside:
            gap = abs(float(np.mean([float(stated[i]) for i in inside])) - float(np.mean(correct[inside])))
            expected += len(inside) / rows * gap
    assert calibration_error(stated, correct) == pytest.approx(expected, abs=1e-9)


@given(seeds, sizes)
def test_auc_counts_ordered_pairs(seed: int, rows: int) -> None:
    """AUC is the share of (positive, negative) pairs in the right order, ties counting half; None without pairs."""
    random = np.random.default_rng(seed)
    scores, positive = random.integers(0, 11, rows) / 10, random.integers(0, 2, rows).astype(bool)
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auc(positive, scores) == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_no_examples() -> None:
    """Without examples there is no AUC, and no calibration error."""
    assert auc(np.empty(0, bool), np.empty(0)) is None
    assert calibration_error(np.empty(0), np.empty(0)) == 0.0
