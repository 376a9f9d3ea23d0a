"""How good what was served has been (deterministic): figures over the newest labels, whichever release gave the scores.

See `inference.models.metrics.calibration_error`. For several classes it is that of the most probable class, for several
labels that of all labels together.
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


class Quality:
    """The figures of the newest `over` labels."""

    def __init__(self, kind: Kind, over: int = OVER) -> None:
        self._kind, self._over = kind, over
        self._losses: dict[str, Column] = {}
        self._said, self._true = np.empty(0), np.empty(0)  # probabilities, and whether they came true

    def take(self, scores: Scores, targets: Targets) -> None:
        """The next scores [n, outputs] as served, and targets [n]."""
        kind = self._kind
        metrics: tuple[Metric, ...] = ("squared_error",) if kind is Kind.REGRESSION else ("log_loss", "accuracy")
        for metric in metrics:
            self._losses[metric] = self._newest(self._losses.get(metric), losses(metric, kind, scores, targets))
        if kind is not Kind.REGRESSION:
            said, true = _claims(kind, scores, targets)
            self._said = self._newest(self._said, said, len(said) // max(len(targets), 1))
            self._true = self._newest(self._true, true, len(true) // max(len(targets), 1))

    def figures(self) -> dict[str, float]:
        """`examples`; of regression `squared_error`, else `log_loss`, `accuracy` and `calibration_error`; {} before the
        first label."""
        if not self._losses:
            return {}
        means = {metric: float(column.mean()) for metric, column in self._losses.items()}
        found = {"examples": float(len(next(iter(self._losses.values()))))} | means
        if "accuracy" in means:
            found["accuracy"] = 1 - means["accuracy"]
            found["calibration_error"] = calibration_error(self._said, self._true)
        return found

    def _newest(self, known: Column | None, more: Column, each: int = 1) -> Column:
        return (more if known is None else np.concatenate((known, more)))[-self._over * max(each, 1) :]


def _claims(kind: Kind, scores: Scores, targets: Targets) -> tuple[Column, Column]:
    """Probabilities that were stated, and whether they came true."""
    if kind is Kind.MULTICLASS:
        top = scores.argmax(axis=1)
        return scores[np.arange(len(top)), top].astype(np.float64), (top == targets).astype(np.float64)
    return scores.reshape(-1).astype(np.float64), targets.reshape(-1).astype(np.float64)
