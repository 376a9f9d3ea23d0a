"""How good the live model is, over time (pure): beside references, on the same examples.

A curve has at most `POINTS` points: when there are more, pairs become one. What is shown at a point is the mean over
the newest `WINDOW` examples up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

POINTS = 240
WINDOW = 2_000
_FIRST_S = 0.5  # the width of a point before any were joined

Scores: TypeAlias = NDArray[np.float32]
Measure: TypeAlias = Callable[[Scores, Scores], Mapping[str, NDArray[np.float64]]]
"""Scores [n, outputs] and targets [n] to the losses [n] of each metric."""


class _Sum(NamedTuple):
    """Of one model at one point."""

    examples: int
    losses: dict[str, float]

    def plus(self, other: _Sum) -> _Sum:
        metrics = self.losses.keys() | other.losses.keys()
        return _Sum(
            self.examples + other.examples,
            {name: self.losses.get(name, 0.0) + other.losses.get(name, 0.0) for name in metrics},
        )


class Quality:
    """Sums of losses by time and model: `live`, and whatever others are measured beside it."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._width = _FIRST_S
        self._points: dict[int, dict[str, _Sum]] = {}  # by time // width
        self.metrics: tuple[str, ...] = ()

    def take(self, at: float, scores: Mapping[str, Scores], targets: Scores) -> None:
        """Examples that came at `at`, unix seconds: each model's scores [n, outputs], and targets [n]."""
        if not len(targets):
            return
        point = self._points.setdefault(int(at // self._width), {})
        for model, given in scores.items():
            losses = {name: float(loss.sum()) for name, loss in self._measure(given, targets).items()}
            self.metrics = tuple(losses)
            added = _Sum(len(targets), losses)
            point[model] = point[model].plus(added) if model in point else added
        while len(self._points) > POINTS:
            self._join()

    def section(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The curves of the models that are named, for people; None where a model was not measured yet."""
        times = sorted(self._points)
        return {
            "window": WINDOW,
            "metrics": self.metrics,
            "at": [round((time + 0.5) * self._width, 3) for time in times],
            "models": [
                {"name": name, "label": label, "curves": self._curves(name, times), "now": self.newest(name)}
                for name, label in names.items()
            ],
        }

    def newest(self, model: str, window: int = WINDOW) -> dict[str, float] | None:
        """The mean losses over the newest examples; None before there is one."""
        count, sums = 0, dict.fromkeys(self.metrics, 0.0)
        for time in sorted(self._points, reverse=True):
            part = self._points[time].get(model)
            if part is None:
                continue
            count += part.examples
            for name, loss in part.losses.items():
                sums[name] += loss
            if count >= window:
                break
        return {name: total / count for name, total in sums.items()} if count else None

    def count(self, model: str) -> int:
        """Examples that a model was measured on."""
        return sum(_size(point.get(model)) for point in self._points.values())

    def _join(self) -> None:
        """Points twice as wide."""
        before, self._points, self._width = self._points, {}, self._width * 2
        for time, point in before.items():
            joined = self._points.setdefault(time // 2, {})
            for model, part in point.items():
                joined[model] = joined[model].plus(part) if model in joined else part

    def _curves(self, model: str, times: Sequence[int]) -> dict[str, list[float | None]]:
        parts = [self._points[time].get(model) for time in times]
        curves: dict[str, list[float | None]] = {name: [] for name in self.metrics}
        start, count, sums = 0, 0, dict.fromkeys(self.metrics, 0.0)
        for part in parts:
            if part is not None:
                count += part.examples
                for name, loss in part.losses.items():
                    sums[name] += loss
            while start < len(parts) and count - (size := _size(parts[start])) >= WINDOW:
                count -= size
                for name, loss in (parts[start].losses if parts[start] else {}).items():  # type: ignore[union-attr]
                    sums[name] -= loss
                start += 1
            for name in self.metrics:
                curves[name].append(round(sums[name] / count, 5) if count else None)
        return curves


def _size(part: _Sum | None) -> int:
    return part.examples if part else 0
