"""Prequential evaluation (pure): every event is a test, because it was scored before its label was known.

Gama, Sebastiao and Rodrigues, "On evaluating stream learning algorithms", 2013. Accuracy and log-loss are computed by
the function that the promotion gate uses, so that a backtest and a gate agree on the same rows.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.result import Figures, MetricWindow
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.losses import losses
from tailrace.inference.models.metrics import auc, calibration_error
from tailrace.inference.models.targets import labelled

Floats = NDArray[np.float64]


class Prequential(msgspec.Struct, frozen=True):
    """Prequential figures of a history.

    The first `score_from` events, labelled or not, are excluded. For curves the others are split into at most `windows`
    windows of equal length (they differ by one event at most).
    """

    task: Task
    score_from: int = 0
    windows: int = 50

    def figures(self, scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Figures:
        """Figures over all scored events.

        Scores as served, shape [n, outputs]; targets, shape [n] or [n, labels], NaN: no label.
        """
        return figures(self.task, *_labelled(scores[self.score_from :], targets[self.score_from :]))

    def curve(
        self, times: NDArray[np.float64], scores: NDArray[np.float32], targets: NDArray[np.float32]
    ) -> list[MetricWindow]:
        """Figures per window. Times, shape [n], in the order of the events."""
        rows = np.arange(self.score_from, len(targets))
        parts = np.array_split(rows, min(self.windows, len(rows))) if len(rows) else []
        return [self._window(times[part], *_labelled(scores[part], targets[part])) for part in parts]

    def _window(
        self, times: NDArray[np.float64], scores: NDArray[np.float32], targets: NDArray[np.float32]
    ) -> MetricWindow:
        window = MetricWindow(start=float(times.min()), end=float(times.max()), scored=len(targets))
        if not len(targets):
            return window
        if self.task.kind is Kind.REGRESSION:
            window.mean_absolute_error = _finite(np.abs(scores[:, 0].astype(np.float64) - targets).mean())
            return window
        window.accuracy = _finite(1 - losses("accuracy", self.task.kind, scores, targets).mean())
        window.log_loss = _finite(losses("log_loss", self.task.kind, scores, targets).mean())
        return window


def figures(task: Task, scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Figures:
    """Figures of scores, shape [n, outputs], on known targets, shape [n] or [n, labels].

    A figure that is undefined is None: all of them without rows or if a score is not finite; kappa and AUC if only one
    class occurs; R2 if the targets do not vary.
    """
    result = Figures(scored=len(targets))
    if not len(targets) or not np.isfinite(scores).all():
        return result
    if task.kind is Kind.REGRESSION:
        _regression(result, scores[:, 0].astype(np.float64), targets.astype(np.float64))
        return result
    if task.kind is Kind.MULTILABEL:
        return _multilabel(result, task, scores, targets)
    truth = targets.astype(np.int64)
    binary = task.kind is Kind.BINARY
    predicted = (scores[:, 0] > 0.5).astype(np.int64) if binary else scores.argmax(axis=1)
    result.accuracy = _finite(1 - losses("accuracy", task.kind, scores, targets).mean())
    result.log_loss = _finite(losses("log_loss", task.kind, scores, targets).mean())
    result.kappa = kappa(truth, predicted, max(task.outputs, 2))
    if binary:
        result.auc = auc(truth == 1, scores[:, 0])
        result.calibration_error = calibration_error(scores[:, 0], truth == 1)
    else:
        each = [auc(truth == k, scores[:, k]) for k in range(task.outputs)]
        known = [area for area in each if area is not None]
        result.auc = sum(known) / len(known) if known else None
        result.calibration_error = calibration_error(scores.max(axis=1), truth == predicted)
    return result


def _multilabel(result: Figures, task: Task, scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Figures:
    """Means of each label's own figures; a label whose AUC or kappa is undefined is left out of that mean."""
    each = [figures(Task(Kind.BINARY), scores[:, [k]], targets[:, k]) for k in range(task.outputs)]
    for name in ("accuracy", "log_loss", "kappa", "auc", "calibration_error"):
        known = [value for one in each if (value := getattr(one, name)) is not None]
        setattr(result, name, sum(known) / len(known) if known else None)
    return result


def kappa(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> float | None:
    """Cohen's kappa, at most 1: agreement beyond the agreement expected by chance from both class frequencies.

    None if the expected agreement is 1. Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    table = np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    total = float(table.sum())
    expected = float(table.sum(axis=0) @ table.sum(axis=1)) / total**2
    return None if expected == 1 else (float(np.trace(table)) / total - expected) / (1 - expected)


def _regression(result: Figures, values: Floats, truth: Floats) -> None:
    errors = values - truth
    spread = ((truth - truth.mean()) ** 2).sum()
    result.mean_absolute_error = _finite(np.abs(errors).mean())
    result.rmse = _finite(np.sqrt((errors**2).mean()))
    result.r2 = _finite(1 - (errors**2).sum() / spread) if spread > 0 else None


def _labelled(
    scores: NDArray[np.float32], targets: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    known = labelled(targets)
    return scores[known], targets[known]


def _finite(value: np.floating[Any] | float) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
