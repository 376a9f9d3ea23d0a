"""A windowed figure of several entries over event time, as an inline SVG (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from tailrace.backtest.report.markup import Markup, tag
from tailrace.backtest.report.text import instant
from tailrace.backtest.result import Entry, Window

WIDTH, HEIGHT = 900.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 12.0, 28.0
_LANE = 16.0  # of marks, one below another under the curves
_MOST_MARKS = 400  # in a lane: more would be a bar
T = TypeVar("T")
_FAR = 2.5  # a curve whose median is so many times as far from perfect as the best one's may leave the picture


class Metric(NamedTuple):
    """What is drawn. `better`: 1 where larger is better, -1 where smaller is."""

    name: str
    value: Callable[[Window], float | None]
    better: int

    def distance(self, value: float) -> float:
        """How far from perfect, which is 1 for what should be large and 0 for what should be small."""
        return 1 - value if self.better > 0 else value


ACCURACY = Metric("accuracy", lambda window: window.accuracy, 1)
LOG_LOSS = Metric("log-loss", lambda window: window.log_loss, -1)
MEAN_ABSOLUTE_ERROR = Metric("mean absolute error", lambda window: window.mean_absolute_error, -1)


class _Scale(NamedTuple):
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)


def chart(metric: Metric, entries: Sequence[Entry], *, timed: bool, id: str) -> Markup:
    """The picture; each entry's parts have the class `sN`, N its place among `entries`. Empty without any value."""
    known = [value for entry in entries for window in entry.windows if (value := metric.value(window)) is not None]
    if not known:
        return Markup("")
    lanes = [number for number, entry in enumerate(entries) if entry.retrainings or entry.drifts]
    height = HEIGHT + _LANE * len(lanes)
    windows = [window for entry in entries for window in entry.windows]
    x = _Scale(min(w.start for w in windows), max(w.end for w in windows), _LEFT, WIDTH - _RIGHT)
    low, high = _span(metric, entries)
    y = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    clip = tag("clipPath", tag("rect", x=_LEFT, y=0, width=WIDTH - _LEFT, height=HEIGHT - _BOTTOM + 1), id=f"{id}-clip")
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


def outside(metric: Metric, entries: Sequence[Entry]) -> list[str]:
    """The names of entries whose curve leaves the picture, because it would make the others flat."""
    low, high = _span(metric, entries)
    return [
        entry.name
        for entry in entries
        if any((v := metric.value(window)) is not None and not low <= v <= high for window in entry.windows)
    ]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten. `low` < `high`."""
    raw = (high - low) / about
    power = 10.0 ** _floor_log10(raw)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = -(-low // step)
    found = []
    while (tick := first * step) <= high * (1 + 1e-12) + 1e-300:
        found.append(tick)
        first += 1
    return found


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _span(metric: Metric, entries: Sequence[Entry]) -> tuple[float, float]:
    """The range of values to show: of all curves but those that lie far from the best."""
    curves = [sorted(v for w in entry.windows if (v := metric.value(w)) is not None) for entry in entries]
    distances = [(metric.distance(curve[len(curve) // 2]), curve) for curve in curves if curve]
    nearest = min((distance for distance, _ in distances), default=0.0)
    shown = [v for distance, curve in distances if nearest <= 0 or distance <= _FAR * nearest for v in curve]
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


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


def _curve(metric: Metric, entry: Entry, x: _Scale, y: _Scale, number: int) -> Markup:
    """One line, broken where a window has no label; a window alone is a dot."""
    parts: list[Markup] = [tag("title", entry.name)]
    points = [(x((w.start + w.end) / 2), metric.value(w)) for w in entry.windows]
    for there, run in groupby(points, key=lambda point: point[1] is not None):
        places = [f"{at:.1f},{y(value):.1f}" for at, value in run if value is not None]
        if there and len(places) == 1:
            places *= 2
        if there:
            parts.append(tag("polyline", points=" ".join(places)))
    return tag("g", *parts, class_=f"curve s{number}")


def _marks(entry: Entry, number: int, x: _Scale, top: float, timed: bool) -> Markup:
    """A lane of one policy: a tick for each run (short: not released), a triangle for each drift."""
    middle = top + _LANE / 2
    parts: list[Markup] = [tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=middle, y2=middle, class_="lane")]
    for run in _thinned(entry.retrainings):
        at, half = f"{x(run.at):.1f}", 5 if run.released else 2
        told = f"{entry.name}, {instant(run.at, timed=timed)}: {run.reason}{'' if run.released else ' (not released)'}"
        parts.append(tag("line", tag("title", told), x1=at, x2=at, y1=middle - half, y2=middle + half))
    for drift in _thinned(entry.drifts):
        at_ = x(drift.at)
        told = f"{entry.name}, {instant(drift.at, timed=timed)}: {drift.what}"
        corners = f"M{at_ - 4:.1f} {middle - 5:g}h8l-4 7z"
        parts.append(tag("path", tag("title", told), d=corners))
    return tag("g", *parts, class_=f"marks s{number}")


def _thinned(items: Sequence[T]) -> Sequence[T]:
    return items[:: -(-len(items) // _MOST_MARKS)] if items else items


def legend(entries: Sequence[Entry]) -> Markup:
    """A box for each entry that shows and hides its parts."""
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
