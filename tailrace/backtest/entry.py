"""Entries of a backtest result (pure): figures and costs of one policy or baseline."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.history.arrays import Stream
from tailrace.backtest.history.partial import PartialHistory
from tailrace.backtest.metrics import Prequential
from tailrace.backtest.result import BacktestEntry
from tailrace.monitoring.telemetry.energy import Energy, cost


class Prices(NamedTuple):
    """Prices of a kilowatt-hour and of a core-hour, in one currency."""

    kwh: float
    core_hour: float


def entry(
    name: str,
    history: Stream | PartialHistory,
    scores: NDArray[np.float32],
    measure: Prequential,
    prices: Prices,
    *,
    cpu_seconds: float,
    seconds: float,
    energy: Energy,
    **fields: Any,
) -> BacktestEntry:
    """Build the entry of a policy or baseline from its scores, shape [n, outputs], and its consumption.

    `cpu_seconds`: CPU time of scoring and learning; `seconds`: their wall-clock time. `fields`: further fields of
    BacktestEntry.
    """
    figures = measure.figures(scores, history.targets)
    return BacktestEntry(
        name=name,
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        joules=energy.joules,
        joules_from=energy.source,
        cost=cost(energy.joules, cpu_seconds, kwh=prices.kwh, core_hour=prices.core_hour),
        windows=measure.curve(history.times, scores, history.targets),
        **msgspec.structs.asdict(figures),
        **fields,
    )
