"""Result of a backtest (pure): the JSON object that the command prints and the report shows.

Unknown or undefined values are null. No value is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec


class Figures(msgspec.Struct, kw_only=True):
    """Figures of quality over `scored` labelled events. `tailrace.backtest.metrics` defines each one."""

    scored: int = 0
    accuracy: float | None = None
    kappa: float | None = None
    auc: float | None = None
    log_loss: float | None = None
    calibration_error: float | None = None
    mean_absolute_error: float | None = None
    rmse: float | None = None
    r2: float | None = None


class MetricWindow(msgspec.Struct, kw_only=True):
    """Figures of consecutive events, of which `scored` have a label.

    `start` and `end` (in JSON: `from` and `to`): times of the first and the last event on the simulated clock.
    """

    start: float = msgspec.field(name="from")
    end: float = msgspec.field(name="to")
    scored: int = 0
    accuracy: float | None = None
    log_loss: float | None = None
    mean_absolute_error: float | None = None


class Retraining(msgspec.Struct, kw_only=True):
    """A retraining run.

    `at`: time of its trigger on the simulated clock. `trigger`: kind of the trigger, such as "labels" or "drift".
    `reason`: the trigger's explanation. `seconds`: wall-clock duration. `examples`: number of training examples.
    `gate`: verdict of the promotion gate. `released`: True if the model of this run was published.
    """

    at: float
    reason: str
    trigger: str = ""
    seconds: float | None = None
    examples: int | None = None
    gate: str | None = None
    released: bool = True


class DriftDetection(msgspec.Struct, kw_only=True):
    """A drift detection: its time on the simulated clock and a description (in JSON: `what`)."""

    at: float
    description: str = msgspec.field(name="what", default="drift")


class BacktestEntry(Figures, kw_only=True):
    """Figures and costs of a policy or a baseline.

    `settings`: the policy in words. `cpu_seconds` and `seconds` (wall-clock) include scoring and learning.
    `joules_from`: source of `joules` (rapl, nvml or estimate). `cost`: in the currency of the result. `releases` and
    `updates`: numbers of published models and of online updates.
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
    drifts: list[DriftDetection] = []
    windows: list[MetricWindow] = []


class BacktestResult(msgspec.Struct, kw_only=True):
    """Result of a backtest. Times are unix seconds on the simulated clock, or event numbers if `timed` is false."""

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
    """Rows per second that training was charged to the simulated clock."""
    policies: list[BacktestEntry] = []
    baselines: list[BacktestEntry] = []


def builtin(result: BacktestResult) -> dict[str, Any]:
    """Return the result as plain values for JSON. Numbers that are not finite become None."""
    plain: dict[str, Any] = _finite(msgspec.to_builtins(result))
    return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
