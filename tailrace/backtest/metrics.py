"""How good scores were (pure): each event was scored before its label was known, so every one is a test.

Prequential evaluation: Gama, Sebastiao and Rodrigues, "On evaluating stream learning algorithms", 2013. Accuracy and
log-loss are the gate's own: a backtest and a gate never disagree on the same rows.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.result import Figures, Window
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.losses import losses
from tailrace.inference.models.targets import labelled

BINS = 15  # of the calibration error, as in Guo et al., 2017

Floats = NDArray[np.float64]


class Prequential(msgspec.Struct, frozen=True):
    """Figures of a whole history. The first `score_from` events (labelled or not) are left out; the others are cut into
    at most `windows` stretches of as equal length as can be, for curves."""

    task: Task
    score_from: int = 0
    windows: int = 50

    def figures(self, scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Figures:
        """Figures of scores [n, outputs] as served; targets [n], or [n, labels], NaN where no label ever came."""
        return figures(self.task, *_labelled(scores[self.score_from :], targets[self.score_from :]))

    def curve(
        self, times: NDArray[np.float64], scores: NDArray[np.float32], targets: NDArray[np.float32]
    ) -> list[Window]:
        """The same by window; times [n] in the order of the events."""
        rows = np.arange(self.score_from, len(targets))
        parts = np.array_split(rows, min(self.windows, len(rows))) if len(rows) else []
        return [self._window(times[part], *_labelled(scores[part], targets[part])) for part in parts]

    def _window(self, times: NDArray[np.float64], scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Window:
        window = Window(start=float(times.min()), end=float(times.max()), scored=len(targets))
        if not len(targets):
            return window
        if self.task.kind is Kind.REGRESSION:
            window.mean_absolute_error = _known(np.abs(scores[:, 0].astype(np.float64) - targets).mean())
            return window
        window.accuracy = _known(1 - losses("accuracy", self.task.kind, scores, targets).mean())
        window.log_loss = _known(losses("log_loss", self.task.kind, scores, targets).mean())
        return window


def figures(task: Task, scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Figures:
    """Figures of scores [n, outputs] as served on targets [n], or [n, labels], all of them known.

    What has no meaning is None: all of them on no rows, or when a score is not finite; kappa and AUC where there is one
    class only; R2 where the targets do not vary.
    """
    found = Figures(scored=len(targets))
    if not len(targets) or not np.isfinite(scores).all():
        return found
    if task.kind is Kind.REGRESSION:
        _regression(found, scores[:, 0].astype(np.float64), targets.astype(np.float64))
        return found
    if task.kind is Kind.MULTILABEL:
        return _multilabel(found, task, scores, targets)
    truth = targets.astype(np.int64)
    binary = task.kind is Kind.BINARY
    guessed = (scores[:, 0] > 0.5).astype(np.int64) if binary else scores.argmax(axis=1)
    found.accuracy = _known(1 - losses("accuracy", task.kind, scores, targets).mean())
    found.log_loss = _known(losses("log_loss", task.kind, scores, targets).mean())
    found.kappa = kappa(truth, guessed, max(task.outputs, 2))
    if binary:
        found.auc = auc(truth == 1, scores[:, 0])
        found.calibration_error = calibration_error(scores[:, 0], truth == 1)
    else:
        each = [auc(truth == k, scores[:, k]) for k in range(task.outputs)]
        known = [area for area in each if area is not None]
        found.auc = sum(known) / len(known) if known else None
        found.calibration_error = calibration_error(scores.max(axis=1), truth == guessed)
    return found


def _multilabel(found: Figures, task: Task, scores: NDArray[np.float32], targets: NDArray[np.float32]) -> Figures:
    """The means of the labels' own; of AUC and kappa, of those that have one."""
    each = [figures(Task(Kind.BINARY), scores[:, [k]], targets[:, k]) for k in range(task.outputs)]
    for name in ("accuracy", "log_loss", "kappa", "auc", "calibration_error"):
        known = [value for one in each if (value := getattr(one, name)) is not None]
        setattr(found, name, sum(known) / len(known) if known else None)
    return found


def kappa(truth: NDArray[np.int64], guessed: NDArray[np.int64], classes: int) -> float | None:
    """Cohen's kappa: agreement beyond what the two class frequencies give by chance, <= 1; None where chance alone
    agrees always. Cohen, "A coefficient of agreement for nominal scales", 1960."""
    table = np.bincount(truth * classes + guessed, minlength=classes * classes).reshape(classes, classes)
    total = float(table.sum())
    by_chance = float(table.sum(axis=0) @ table.sum(axis=1)) / total**2
    return None if by_chance == 1 else (float(np.trace(table)) / total - by_chance) / (1 - by_chance)


def auc(positive: NDArray[np.bool_], scores: NDArray[np.float32]) -> float | None:
    """The chance that a positive row has a higher score than a negative one, ties counting half (0 to 1); None where
    one of them is missing. Exact: Hanley and McNeil, 1982, by ranks."""
    ahead = int(positive.sum())
    behind = len(positive) - ahead
    if not ahead or not behind:
        return None
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[which.ravel()]  # of equal scores, the mean of theirs
    return float((ranks[positive].sum() - ahead * (ahead + 1) / 2) / (ahead * behind))


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (0 to 1): how far the mean probability is from the share that came true, over 15 bins
    of equal width, weighted by their rows. Binary: of the positive class; multi-class: of the one that was guessed.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017.
    """
    given = confidence.astype(np.float64)
    bins = np.minimum((given * BINS).astype(np.int64), BINS - 1)
    sums = np.bincount(bins, given, BINS) - np.bincount(bins, right, BINS)
    return float(np.abs(sums).sum() / len(given))


def _regression(found: Figures, given: Floats, truth: Floats) -> None:
    errors = given - truth
    spread = ((truth - truth.mean()) ** 2).sum()
    found.mean_absolute_error = _known(np.abs(errors).mean())
    found.rmse = _known(np.sqrt((errors**2).mean()))
    found.r2 = _known(1 - (errors**2).sum() / spread) if spread > 0 else None


def _labelled(
    scores: NDArray[np.float32], targets: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    known = labelled(targets)
    return scores[known], targets[known]


def _known(value: np.floating[Any] | float) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
