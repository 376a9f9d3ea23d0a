"""Columns, counts and times as text (pure), shared by the terminal table and the HTML report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tailrace.backtest.result import BacktestEntry, BacktestResult, Retraining

NONE = "–"


class Column(NamedTuple):
    """A column of the comparison table.

    `value`: reads the column from an entry (None: unknown). `text`: formats a value. `better`: 1 if larger values are
    better, -1 if smaller values are better, 0 for neither.
    """

    head: str
    meaning: str
    value: Callable[[BacktestEntry], float | None]
    text: Callable[[float], str]
    better: int


def columns(result: BacktestResult) -> list[Column]:
    """Return the columns that have a value in at least one row."""
    entries = [*result.policies, *result.baselines]
    return [column for column in _columns(result.currency) if any(column.value(e) is not None for e in entries)]


def cell(column: Column, entry: BacktestEntry) -> str:
    """Format the cell of an entry; unknown values are a dash."""
    value = column.value(entry)
    return NONE if value is None else column.text(value)


def best(column: Column, entries: Sequence[BacktestEntry]) -> str | None:
    """Return the text of the best value in a column, so that values which look equal are marked alike.

    None for a column without an order and for fewer than two known values.
    """
    values = [value for entry in entries if (value := column.value(entry)) is not None]
    if not column.better or len(values) < 2:
        return None
    return column.text(max(values) if column.better > 0 else min(values))


def _columns(currency: str) -> list[Column]:
    return [
        Column("accuracy", "share of events whose most likely class occurred", lambda e: e.accuracy, _share, 1),
        Column("kappa", "accuracy beyond chance (Cohen)", lambda e: e.kappa, _three, 1),
        Column("AUC", "probability that a positive event ranks above a negative one", lambda e: e.auc, _three, 1),
        Column("log-loss", "negative log of the probability of the outcome", lambda e: e.log_loss, _four, -1),
        Column("ECE", "expected calibration error, 15 bins", lambda e: e.calibration_error, _three, -1),
        Column("MAE", "mean absolute error", lambda e: e.mean_absolute_error, _amount, -1),
        Column("RMSE", "root of the mean squared error", lambda e: e.rmse, _amount, -1),
        Column("R²", "share of the variance explained", lambda e: e.r2, _three, 1),
        Column("runs", "retraining runs", _runs, _count, 0),
        Column("updates", "online updates", lambda e: e.updates or None, _count, 0),
        Column("releases", "models published", lambda e: e.releases or None, _count, 0),
        Column("CPU s", "CPU seconds of scoring and learning", lambda e: e.cpu_seconds, _amount, 0),
        Column("seconds", "wall-clock seconds of scoring and learning", lambda e: e.seconds, _amount, 0),
        Column("joules", "energy, measured or estimated", lambda e: e.joules, _amount, 0),
        Column(currency, "cost of CPU time and energy", lambda e: e.cost, _amount, 0),
    ]


def runs_by_trigger(retrainings: Sequence[Retraining]) -> str:
    """Count the runs by kind of trigger, most frequent first, such as "7 × labels, 2 × drift"."""
    counts = Counter(retraining.trigger or "other" for retraining in retrainings)
    return ", ".join(f"{count:,} × {trigger}" for trigger, count in counts.most_common())


def not_released(entry: BacktestEntry) -> int:
    """Count the runs whose candidate was not released."""
    return sum(not retraining.released for retraining in entry.retrainings)


def instant(time: float, *, timed: bool, span: float = 0.0) -> str:
    """Format a time of the simulated clock (UTC), or an event number if `timed` is false.

    `span`: width of the time axis in seconds, which decides the precision; 0: date and time in full.
    """
    if not timed:
        return f"{time:,.0f}"
    try:
        moment = datetime.fromtimestamp(time, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time:,.0f}"
    if span >= 400 * 86_400:
        return f"{moment:%b %Y}"
    if span >= 5 * 86_400:
        return f"{moment:%d %b %Y}" if span >= 300 * 86_400 else f"{moment:%d %b}"
    return f"{moment:%d %b %H:%M}" if span else f"{moment:%Y-%m-%d %H:%M}"


def _runs(entry: BacktestEntry) -> float | None:
    return float(len(entry.retrainings)) if entry.retrainings else None


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _four(value: float) -> str:
    return f"{value:.4f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _amount(value: float) -> str:
    if 0 < value < 1e-4:
        return "<0.0001"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
