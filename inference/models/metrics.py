"""Metrics of scores over many examples (pure): area under the ROC curve and expected calibration error.

Losses of single examples are in `losses`. The console, the promotion metrics, the backtest and the demo all use these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of the calibration error, as in Guo et al. (2017). Up to version 0.1 live metrics used 10 and backtests 15."""


def auc(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float | None:
    """Area under the ROC curve, 0 to 1: the probability that a positive example scores above a negative one.

    `positive` and `scores` have shape [n]; ties count half. None if either class is missing. Exact, from the ranks:
    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic curve", 1982.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse.ravel()]  # tied scores share the mean of their ranks
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(probabilities: NDArray[np.floating[Any]], correct: NDArray[Any]) -> float:
    """Expected calibration error, 0 to 1, over 15 bins of equal width; 0 for no examples.

    The mean over bins, weighted by their examples, of the distance between a bin's mean probability and its share of
    correct examples. Both arguments have shape [n]; `correct` holds 0 and 1, or booleans. For a binary task the
    probability is that of the positive class, for several classes that of the most probable one.

    15 bins are the value of Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017, which
    makes the figure comparable with published ones.
    """
    if not len(probabilities):
        return 0.0
    exact = probabilities.astype(np.float64)
    bins = np.minimum((exact * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, exact, BINS) - np.bincount(bins, correct, BINS)
    return float(np.abs(gaps).sum() / len(exact))
