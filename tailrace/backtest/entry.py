"""From scores and what they took to a row of the outcome (pure)."""

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
    """Of a kilowatt-hour and of a core for an hour, in one currency."""

    kwh: float
    core_hour: float


def entry(
    name: str,
    stream: Stream | PartialHistory,
    scores: NDArray[np.float32],
    measure: Prequential,
    prices: Prices,
    *,
    cpu_seconds: float,
    seconds: float,
    energy: Energy,
    **more: Any,
) -> BacktestEntry:
    """A policy or baseline that gave these scores [n, outputs]; `more`: other fields of BacktestEntry."""
    figures = measure.figures(scores, stream.targets)
    return BacktestEntry(
        name=name,
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        joules=energy.joules,
        joules_from=energy.source,
        cost=cost(energy.joules, cpu_seconds, kwh=prices.kwh, core_hour=prices.core_hour),
        windows=measure.curve(stream.times, scores, stream.targets),
        **msgspec.structs.asdict(figures),
        **more,
    )
