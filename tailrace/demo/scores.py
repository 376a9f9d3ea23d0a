"""How good probabilities were (pure): log-loss, and AUC from ranks (Mann-Whitney)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SMALLEST = 1e-6


def log_loss(scores: Array, labels: Array) -> float | None:
    """Mean negative log-likelihood of labels (0 or 1) under probabilities; None without any."""
    if not len(scores):
        return None
    p = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def auc(scores: Array, labels: Array) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half; None without both."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[inverse]
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
