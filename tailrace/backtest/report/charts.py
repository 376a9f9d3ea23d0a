"""Line charts of windowed figures over event time, one line per policy or baseline, as inline SVG (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np

from tailrace.backtest.report.markup import Markup, tag
from tailrace.backtest.report.text import instant
from tailrace.backtest.result import BacktestEntry, MetricWindow

WIDTH, HEIGHT = 900.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 12.0, 28.0
_LANE = 16.0  # height of a policy's lane of marks under the curves
_MOST_MARKS = 400  # marks per lane; more would merge into a bar
_FAR = 2.5  # policies whose median error is larger than this multiple of the smallest one do not set the axis
_FENCE = 3.0  # interquartile ranges beyond the quartiles; values outside do not set the axis (Tukey's outer fences)
_MARGIN = 0.5  # of the range of the policies: baselines may widen the axis by this on each side
T = TypeVar("T")


class Metric(NamedTuple):
    """A charted metric. `better`: 1 if larger values are better, -1 if smaller values are better."""

    name: str
    value: Callable[[MetricWindow], float | None]
    better: int

    def distance(self, value: float) -> float:
        """Return the distance from a perfect value, which is 1 if larger is better and 0 if smaller is better."""
        return 1 - value if self.better > 0 else value

    def values(self, entry: BacktestEntry) -> list[float]:
        """Return the known values of an entry, window by window."""
        return [value for window in entry.windows if (value := self.value(window)) is not None]


ACCURACY = Metric("accuracy", lambda window: window.accuracy, 1)
LOG_LOSS = Metric("log-loss", lambda window: window.log_loss, -1)
MEAN_ABSOLUTE_ERROR = Metric("mean absolute error", lambda window: window.mean_absolute_error, -1)


class _Scale(NamedTuple):
    """Linear map from values in [low, high] to coordinates in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)


def chart(
    metric: Metric, policies: Sequence[BacktestEntry], baselines: Sequence[BacktestEntry] = (), *, timed: bool, id: str
) -> Markup:
    """Return an SVG element with the curves of a metric; empty text if no entry has a value.

    The value axis is scaled to the policies, and values outside it are clipped: see `clipped`. The parts of entry N
    (policies first) have the class `sN`, so that a style or a script can address them.
    """
    entries = [*policies, *baselines]
    if not any(metric.values(entry) for entry in entries):
        return Markup("")
    lanes = [number for number, entry in enumerate(entries) if entry.retrainings or entry.drifts]
    height = HEIGHT + _LANE * len(lanes)
    windows = [window for entry in entries for window in entry.windows]
    x = _Scale(min(w.start for w in windows), max(w.end for w in windows), _LEFT, WIDTH - _RIGHT)
    low, high = value_range(metric, policies, baselines)
    y = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    box = tag("rect", x=_LEFT, y=_TOP - 1, width=WIDTH - _LEFT, height=HEIGHT - _BOTTOM - _TOP + 2)
    clip = tag("clipPath", box, id=f"{id}-clip")
    curves = [_curve(metric, entry, x, y, number) for number, entry in enumerate(entries)]
    return tag(
        "svg",
        tag("title", f"{metric.name} by window", id=f"{id}-title"),
        tag("defs", clip),
        *_grid(x, y, timed),
        tag("g", *curves, clip_path=f"url(#{id}-clip)"),
        *(_marks(entries[n], n, x, HEIGHT + _LANE * place, timed) for place, n in enumerate(lanes)),
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_labelledby=f"{id}-title",
    )


def clipped(
    metric: Metric, policies: Sequence[BacktestEntry], baselines: Sequence[BacktestEntry] = ()
) -> list[tuple[BacktestEntry, float, float]]:
    """Return the entries with values outside the value axis, each with its smallest and largest value."""
    low, high = value_range(metric, policies, baselines)
    ranges = [(entry, values) for entry in (*policies, *baselines) if (values := metric.values(entry))]
    return [(entry, min(values), max(values)) for entry, values in ranges if min(values) < low or max(values) > high]


def value_range(
    metric: Metric, policies: Sequence[BacktestEntry], baselines: Sequence[BacktestEntry] = ()
) -> tuple[float, float]:
    """Return the lowest and the highest value of the axis.

    The range is that of the policies, without single outliers and without policies whose error is `_FAR` times the
    smallest. Baselines widen it by at most half of that range on each side, so a bad baseline cannot flatten the
    policies' curves. Without values of policies, baselines take their place.
    """
    reference = [values for entry in policies if (values := metric.values(entry))]
    others = [value for entry in baselines for value in metric.values(entry)]
    if not reference:
        reference, others = [values for entry in baselines if (values := metric.values(entry))], []
    low, high = _usual_range(metric, reference)
    room = (high - low) * _MARGIN or abs(high) * 0.05
    within = [value for value in others if low - room <= value <= high + room]
    low, high = min([low, *within]), max([high, *within])
    space = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    return (max(0.0, low - space) if low >= 0 else low - space), high + space


def _usual_range(metric: Metric, curves: Sequence[list[float]]) -> tuple[float, float]:
    """Return the smallest and the largest value of the curves, without outliers; (0, 1) without curves."""
    distances = [metric.distance(sorted(curve)[len(curve) // 2]) for curve in curves]
    nearest = min(distances, default=0.0)
    near = [c for c, distance in zip(curves, distances, strict=True) if nearest <= 0 or distance <= _FAR * nearest]
    values = np.array([value for curve in near for value in curve])
    if not len(values):
        return 0.0, 1.0
    first, third = np.quantile(values, (0.25, 0.75))
    fence = _FENCE * (third - first)
    usual = values[(first - fence <= values) & (values <= third + fence)] if fence > 0 else values
    return float(usual.min()), float(usual.max())


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about `about` round numbers in [low, high], in steps of 1, 2 or 5 times a power of ten. `low` < `high`."""
    raw = (high - low) / about
    power = 10.0 ** _floor_log10(raw)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = -(-low // step)
    steps = []
    while (tick := first * step) <= high * (1 + 1e-12) + 1e-300:
        steps.append(tick)
        first += 1
    return steps


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _grid(x: _Scale, y: _Scale, timed: bool) -> list[Markup]:
    parts = []
    for tick in ticks(y.low, y.high):
        at = f"{y(tick):.1f}"
        parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", f"{tick:.6g}", x=_LEFT - 8, y=at, dy="0.32em", text_anchor="end"))
    span = x.high - x.low
    for part in range(6):
        time = x.low + span * part / 5
        anchor = "start" if part == 0 else "end" if part == 5 else "middle"
        label = instant(time, timed=timed, span=span)
        parts.append(tag("text", label, x=f"{x(time):.1f}", y=HEIGHT - 8, text_anchor=anchor))
    return parts


def _curve(metric: Metric, entry: BacktestEntry, x: _Scale, y: _Scale, number: int) -> Markup:
    """Draw a line with a gap at windows without a label. A window between two gaps is a dot."""
    parts: list[Markup] = [tag("title", entry.name)]
    points = [(x((w.start + w.end) / 2), metric.value(w)) for w in entry.windows]
    for is_known, stretch in groupby(points, key=lambda point: point[1] is not None):
        corners = [f"{at:.1f},{y(value):.1f}" for at, value in stretch if value is not None]
        if is_known and len(corners) == 1:
            corners *= 2
        if is_known:
            parts.append(tag("polyline", points=" ".join(corners)))
    return tag("g", *parts, class_=f"curve s{number}")


def _marks(entry: BacktestEntry, number: int, x: _Scale, top: float, timed: bool) -> Markup:
    """Draw the lane of a policy: a tick for each run (short if it was not released), a triangle for each drift."""
    middle = top + _LANE / 2
    parts: list[Markup] = [tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=middle, y2=middle, class_="lane")]
    for run in _thinned(entry.retrainings):
        at, half = f"{x(run.at):.1f}", 5 if run.released else 2
        title = f"{entry.name}, {instant(run.at, timed=timed)}: {run.reason}{'' if run.released else ' (not released)'}"
        parts.append(tag("line", tag("title", title), x1=at, x2=at, y1=middle - half, y2=middle + half))
    for drift in _thinned(entry.drifts):
        title = f"{entry.name}, {instant(drift.at, timed=timed)}: {drift.description}"
        parts.append(tag("path", tag("title", title), d=f"M{x(drift.at) - 4:.1f} {middle - 5:g}h8l-4 7z"))
    return tag("g", *parts, class_=f"marks s{number}")


def _thinned(items: Sequence[T]) -> Sequence[T]:
    return items[:: -(-len(items) // _MOST_MARKS)] if items else items


def legend(entries: Sequence[BacktestEntry]) -> Markup:
    """Return a checkbox per entry, which shows or hides the entry's curve and marks."""
    boxes = [
        tag(
            "label",
            tag("input", type="checkbox", checked=True, data_series=str(number)),
            tag("svg", tag("line", x1=0, x2=26, y1=6, y2=6), viewBox="0 0 26 12", aria_hidden="true", class_="key"),
            entry.name,
            class_=f"s{number}",
        )
        for number, entry in enumerate(entries)
    ]
    return tag("fieldset", tag("legend", "Show"), *boxes)
