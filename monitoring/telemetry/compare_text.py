"""Comparison of inference and training as text (pure): rows of a table, and one sentence for each side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

Comparison: TypeAlias = Mapping[str, Any]
"""The result of `tailrace.monitoring.telemetry.compare.comparison`, or one of its two sides."""
_NONE = "-"


def rows(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """Yield rows of a table: the name of a figure, its text for inference, its text for training."""
    inference, training = comparison["inference"], comparison["training"]
    columns: dict[str, Callable[[Comparison], str]] = {
        "purpose": lambda side: str(side["purpose"]),
        "compute": _compute,
        "latency of": lambda side: str(side["latency"]["of"]),
        "p50": lambda side: duration(side["latency"]["p50_s"]),
        "p99": lambda side: duration(side["latency"]["p99_s"]),
        "data": lambda side: ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in side["data"].items()),
        "hardware": _hardware,
        "energy": _energy,
        "cost": lambda side: _costs(side["cost"]),
    }
    for name, text in columns.items():
        yield name, text(inference), text(training)
    yield "of a run, p50", _NONE, duration(training["run_latency"]["p50_s"])
    predictions, retraining = inference["per_million_predictions"], training["per_retraining"]
    yield (
        "energy of each",
        _per(predictions, _joules, "million predictions"),
        _per(retraining, _joules, "retraining"),
    )
    yield (
        "cost of each",
        _per(predictions, lambda unit: _costs(unit["cost"]), "million predictions"),
        _per(retraining, lambda unit: _costs(unit["cost"]), "retraining"),
    )


def sentences(comparison: Comparison) -> list[str]:
    """Return one sentence on inference and one on training: amount of work, CPU seconds, energy and cost."""
    inference, training = comparison["inference"], comparison["training"]
    cpu = {name: side["compute"].get("cpu_seconds", 0.0) for name, side in comparison.items()}
    published = sum(training["published"].values())
    return [
        f"inference: {inference['data']['events']:,} predictions in {cpu['inference']:.1f} CPU s, "
        f"{_energy(inference)}, {_costs(inference['cost'])}",
        f"training: {published:,} retrainings in {cpu['training']:.1f} CPU s, "
        f"{_energy(training)}, {_costs(training['cost'])}",
    ]


def duration(seconds: float | None) -> str:
    """Format a duration in seconds as milliseconds, seconds, minutes or hours; "-" for None."""
    if seconds is None:
        return _NONE
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7_200 else f"{seconds / 3600:,.0f} h"


def _compute(side: Comparison) -> str:
    return ", ".join(
        f"{value:,.1f} {name.removesuffix('_seconds').upper()} s" for name, value in side["compute"].items()
    )


def _hardware(side: Comparison) -> str:
    def text(machine: Mapping[str, str]) -> str:
        gpu = "" if machine["gpu"] == "none" else f", {machine['gpu']}"
        return f"{machine['processor']}, {machine['cores']} cores ({machine['machine']}){gpu}"

    return "; ".join(map(text, side["hardware"])) or _NONE


def _energy(side: Comparison) -> str:
    sources = " + ".join(sorted(side["energy"]["sources"])) or "none"
    return f"{_amount(side['energy']['joules'])} J ({sources})"


def _joules(unit: Comparison) -> str:
    return f"{_amount(unit['joules'])} J"


def _costs(costs: Mapping[str, float]) -> str:
    return ", ".join(f"{_amount(cost)} {currency}" for currency, cost in costs.items()) or _NONE


def _per(unit: Comparison | None, text: Callable[[Comparison], str], name: str) -> str:
    """A figure of one unit of work; "-" where none was done."""
    return _NONE if unit is None else f"{text(unit)} per {name}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
