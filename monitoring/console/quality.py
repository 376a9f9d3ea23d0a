"""Losses of the live model and its references over event time, on the same examples (pure).

A curve has at most `POINTS` points. When it would have more, points become twice as wide and pairs are added up. The
value at a point is the mean over the newest `WINDOW` examples up to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.gate import Metric
from tailrace.declaration.task import Kind
from tailrace.inference.models.losses import Scores, Targets, losses

POINTS = 240
WINDOW = 2_000
_FIRST_S = 0.5  # width of a point before any were added up, in seconds
_LAST_TIME = 4e9  # the year 2096: a label time beyond it is an error of its sender


class _LossSum(NamedTuple):
    """Sums of losses of one model at one point."""

    examples: int
    losses: dict[str, float]

    def plus(self, other: _LossSum) -> _LossSum:
        sums = {metric: loss + other.losses[metric] for metric, loss in self.losses.items()}
        return _LossSum(self.examples + other.examples, sums)


class QualityCurves:
    """Sums of losses by time and model, on the same examples."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.metrics: tuple[Metric, ...] = ("squared_error",) if kind is Kind.REGRESSION else ("log_loss", "accuracy")
        """Metrics that are measured; all are losses (accuracy: the error rate)."""
        self._width = _FIRST_S
        self._points: dict[int, dict[str, _LossSum]] = {}  # by time // width, then by model

    def take(self, times: NDArray[np.float64], scores: Mapping[str, Scores], targets: Targets) -> None:
        """Add examples: label times [n] in unix seconds, scores [n, outputs] of each model, and targets [n]."""
        if not len(targets):
            return
        places = np.floor_divide(times.clip(0, _LAST_TIME), self._width).astype(np.int64)
        numbers, rows, counts = np.unique(places, return_inverse=True, return_counts=True)
        for model, given in scores.items():
            columns = {
                metric: np.bincount(rows, losses(metric, self._kind, given, targets)).tolist()
                for metric in self.metrics
            }
            for n, (number, count) in enumerate(zip(numbers.tolist(), counts.tolist(), strict=True)):
                self._add(number, model, _LossSum(count, {metric: sums[n] for metric, sums in columns.items()}))
        while len(self._points) > POINTS:
            self._widen()

    def section(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Section of the page: the curves of the models in `labels` (name -> label for people), and their newest means.

        None stands for the points and means of a model before it was measured.
        """
        numbers = sorted(self._points)
        return {
            "window": WINDOW,
            "metrics": self.metrics if numbers else (),
            "at": [round((number + 0.5) * self._width, 3) for number in numbers],
            "models": [
                {"name": name, "label": label, "curves": self._curves(name, numbers), "now": self.newest(name)}
                for name, label in labels.items()
            ],
        }

    def newest(self, model: str, window: int = WINDOW) -> dict[str, float] | None:
        """Mean losses by metric over the `window` newest examples or a few more; None before the first."""
        count, sums = 0, dict.fromkeys(self.metrics, 0.0)
        for number in sorted(self._points, reverse=True):
            part = self._points[number].get(model)
            if part is None:
                continue
            count += part.examples
            for metric in self.metrics:
                sums[metric] += part.losses[metric]
            if count >= window:
                break
        return {metric: total / count for metric, total in sums.items()} if count else None

    def count(self, model: str) -> int:
        """Number of examples that a model was measured on."""
        return sum(_examples(point.get(model)) for point in self._points.values())

    def _add(self, number: int, model: str, part: _LossSum) -> None:
        point = self._points.setdefault(number, {})
        point[model] = point[model].plus(part) if model in point else part

    def _widen(self) -> None:
        """Make points twice as wide and add up pairs."""
        before, self._points, self._width = self._points, {}, self._width * 2
        for number, point in before.items():
            for model, part in point.items():
                self._add(number // 2, model, part)

    def _curves(self, model: str, numbers: Sequence[int]) -> dict[str, list[float | None]]:
        """Moving means of one model, by metric."""
        parts = [self._points[number].get(model) for number in numbers]
        curves: dict[str, list[float | None]] = {metric: [] for metric in self.metrics}
        first, count, sums = 0, 0, dict.fromkeys(self.metrics, 0.0)
        for part in parts:
            if part is not None:
                count += part.examples
                for metric in self.metrics:
                    sums[metric] += part.losses[metric]
            while first < len(parts) and count - _examples(oldest := parts[first]) >= WINDOW:
                if oldest is not None:
                    count -= oldest.examples
                    for metric in self.metrics:
                        sums[metric] -= oldest.losses[metric]
                first += 1
            for metric in self.metrics:
                curves[metric].append(round(sums[metric] / count, 5) if count else None)
        return curves


def _examples(part: _LossSum | None) -> int:
    return part.examples if part else 0
