"""What a backtest says (pure): the JSON object that the command prints and from which the report is drawn.

What is not known, or means nothing for the task, is null: there is no NaN anywhere.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec


class Figures(msgspec.Struct, kw_only=True):
    """How good scores were on `scored` labelled events. See `tailrace.backtest.metrics` for what each one means."""

    scored: int = 0
    accuracy: float | None = None
    kappa: float | None = None
    auc: float | None = None
    log_loss: float | None = None
    calibration_error: float | None = None
    mean_absolute_error: float | None = None
    rmse: float | None = None
    r2: float | None = None


class Window(msgspec.Struct, kw_only=True):
    """A stretch of events, from the time of its first to that of its last (the simulated clock's), and the figures of
    those that have a label."""

    start: float = msgspec.field(name="from")
    end: float = msgspec.field(name="to")
    scored: int = 0
    accuracy: float | None = None
    log_loss: float | None = None
    mean_absolute_error: float | None = None


class Retraining(msgspec.Struct, kw_only=True):
    """One run: when its trigger was due (simulated clock) and why, wall seconds, examples trained on, and what the gate
    said; `released`: whether its model was served."""

    at: float
    reason: str
    seconds: float | None = None
    examples: int | None = None
    gate: str | None = None
    released: bool = True


class Drift(msgspec.Struct, kw_only=True):
    """A detector raised its hand: when (simulated clock) and over what."""

    at: float
    what: str = "drift"


class Entry(Figures, kw_only=True):
    """A policy or a baseline. `settings`: what it was, for people.

    `cpu_seconds` and `seconds` (wall) are for scoring and learning together; `joules` were measured or estimated as
    `joules_from` says (rapl, nvml, estimate); `cost` is in the outcome's currency.
    """

    name: str
    settings: dict[str, str] = {}
    cpu_seconds: float | None = None
    seconds: float | None = None
    joules: float | None = None
    joules_from: str | None = None
    cost: float | None = None
    releases: int = 0
    updates: int = 0
    retrainings: list[Retraining] = []
    drifts: list[Drift] = []
    windows: list[Window] = []


class Outcome(msgspec.Struct, kw_only=True):
    """A whole backtest. Times are unix seconds on the simulated clock, or numbers of events where `timed` is false."""

    data: str
    events: int
    label_delay: str
    labels: int = 0
    pipeline: str = ""
    task: str = "binary"
    score_from: int = 0
    seed: int = 0
    timed: bool = True
    currency: str = "EUR"
    training_rate: float = 50_000.0
    """Rows a second that training was charged with on the simulated clock."""
    policies: list[Entry] = []
    baselines: list[Entry] = []


def builtin(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain values for JSON; a number that is not finite becomes null."""
    found: dict[str, Any] = _finite(msgspec.to_builtins(outcome))
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
