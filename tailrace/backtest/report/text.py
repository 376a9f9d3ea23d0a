"""The words and numbers of a backtest (pure), the same in the terminal and in the report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tailrace.backtest.result import Entry, Outcome, Retraining

NONE = "–"


class Column(NamedTuple):
    """A column of the comparison: its head, what it means, a cell's value and text, and which end is better: 1 the
    larger, -1 the smaller, 0 neither."""

    head: str
    meaning: str
    value: Callable[[Entry], float | None]
    text: Callable[[float], str]
    better: int


def columns(outcome: Outcome) -> list[Column]:
    """The columns that have a value in at least one row."""
    entries = [*outcome.policies, *outcome.baselines]
    return [column for column in _columns(outcome.currency) if any(column.value(e) is not None for e in entries)]


def cell(column: Column, entry: Entry) -> str:
    """A cell's text; a dash for what is not known."""
    value = column.value(entry)
    return NONE if value is None else column.text(value)


def best(column: Column, entries: Sequence[Entry]) -> str | None:
    """The best text in a column, so that what reads the same counts as the same; None where there is no better."""
    known = [value for entry in entries if (value := column.value(entry)) is not None]
    if not column.better or len(known) < 2:
        return None
    return column.text(max(known) if column.better > 0 else min(known))


def _columns(currency: str) -> list[Column]:
    return [
        Column("accuracy", "share of events whose likeliest class came true", lambda e: e.accuracy, _share, 1),
        Column("kappa", "accuracy beyond chance (Cohen)", lambda e: e.kappa, _three, 1),
        Column("AUC", "chance that a positive ranks above a negative", lambda e: e.auc, _three, 1),
        Column("log-loss", "how far probabilities were from what came true", lambda e: e.log_loss, _four, -1),
        Column("ECE", "expected calibration error, 15 bins", lambda e: e.calibration_error, _three, -1),
        Column("MAE", "mean absolute error", lambda e: e.mean_absolute_error, _amount, -1),
        Column("RMSE", "root of the mean squared error", lambda e: e.rmse, _amount, -1),
        Column("R²", "share of the variance that was explained", lambda e: e.r2, _three, 1),
        Column("runs", "retrainings that were started", _runs, _count, 0),
        Column("updates", "online updates", lambda e: e.updates or None, _count, 0),
        Column("releases", "models that were served", lambda e: e.releases or None, _count, 0),
        Column("CPU s", "processor seconds of scoring and learning", lambda e: e.cpu_seconds, _amount, 0),
        Column("seconds", "the same by the clock", lambda e: e.seconds, _amount, 0),
        Column("joules", "energy, measured or estimated", lambda e: e.joules, _amount, 0),
        Column(currency, "cost of cores and energy", lambda e: e.cost, _amount, 0),
    ]


def reasons(retrainings: Sequence[Retraining]) -> list[tuple[str, int]]:
    """The kinds of reasons, numbers written N, and how often each was given; the most frequent first."""
    return Counter(_NUMBERS.sub("N", retraining.reason) for retraining in retrainings).most_common()


def refused(entry: Entry) -> int:
    """How many runs came to nothing."""
    return sum(not retraining.released for retraining in entry.retrainings)


def instant(time: float, *, timed: bool, span: float = 0.0) -> str:
    """A moment of the simulated clock (UTC), as fine as a picture of `span` seconds needs; or an event's number."""
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


_NUMBERS = re.compile(r"\d[\d.,:%-]*(?<![,.:-])")


def _runs(entry: Entry) -> float | None:
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
