"""Quality of the served scores over the newest labels, whichever release gave them (deterministic).

For the calibration error see `inference.models.metrics.calibration_error`. With several classes it is that of the most
probable class, with several labels that of all labels together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.gate import Metric
from tailrace.declaration.task import Kind
from tailrace.inference.models.losses import Scores, Targets, losses
from tailrace.inference.models.metrics import calibration_error

OVER = 2_000  # labels

Column = NDArray[np.float64]


class ServedQuality:
    """Quality figures of the newest `over` labels."""

    def __init__(self, kind: Kind, over: int = OVER) -> None:
        self._kind, self._over = kind, over
        self._losses: dict[str, Column] = {}
        self._probabilities, self._outcomes = np.empty(0), np.empty(0)

    def take(self, scores: Scores, targets: Targets) -> None:
        """Add the next served scores, shape [n, outputs], and their targets, shape [n] or [n, labels]."""
        kind = self._kind
        metrics: tuple[Metric, ...] = ("squared_error",) if kind is Kind.REGRESSION else ("log_loss", "accuracy")
        for metric in metrics:
            self._losses[metric] = self._newest(self._losses.get(metric), losses(metric, kind, scores, targets))
        if kind is not Kind.REGRESSION:
            probabilities, outcomes = _probabilities(kind, scores, targets)
            each = len(probabilities) // max(len(targets), 1)
            self._probabilities = self._newest(self._probabilities, probabilities, each)
            self._outcomes = self._newest(self._outcomes, outcomes, each)

    def figures(self) -> dict[str, float]:
        """Figures by name: `examples`, and `squared_error` or `log_loss`, `accuracy` and `calibration_error`.

        Empty before the first label.
        """
        if not self._losses:
            return {}
        means = {metric: float(column.mean()) for metric, column in self._losses.items()}
        figures = {"examples": float(len(next(iter(self._losses.values()))))} | means
        if "accuracy" in means:
            figures["accuracy"] = 1 - means["accuracy"]
            figures["calibration_error"] = calibration_error(self._probabilities, self._outcomes)
        return figures

    def _newest(self, known: Column | None, more: Column, each: int = 1) -> Column:
        return (more if known is None else np.concatenate((known, more)))[-self._over * max(each, 1) :]


def _probabilities(kind: Kind, scores: Scores, targets: Targets) -> tuple[Column, Column]:
    """Return probabilities and outcomes (1.0 or 0.0), both of shape [m], for the calibration error.

    Multi-class: the most probable class of each row, and whether it is the label. Else all outputs of all rows.
    """
    if kind is Kind.MULTICLASS:
        top = scores.argmax(axis=1)
        return scores[np.arange(len(top)), top].astype(np.float64), (top == targets).astype(np.float64)
    return scores.reshape(-1).astype(np.float64), targets.reshape(-1).astype(np.float64)
