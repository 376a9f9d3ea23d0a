"""Training beside inference (pure): energy, cost and compute, from what the roles' /metrics say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

PHASES = ("inference", "training")


def costs(texts: Iterable[str]) -> dict[str, Any]:
    """The figures of each phase, summed over roles; what nobody measures is None. `texts`: bodies of /metrics."""
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    events = _sum(families, "tailrace_events_total", {"outcome": "predicted"})
    runs = _sum(families, "tailrace_retrain_seconds_count", {})
    updates = _sum(families, "tailrace_update_seconds_count", {})
    done = {"inference": events, "training": (runs or 0) + (updates or 0)}
    return {
        "phases": {phase: _phase(families, phase, done[phase]) for phase in PHASES},
        "swap_pause_s": _mean(families, "tailrace_swap_pause_seconds"),
    }


def _phase(families: list[Metric], phase: str, done: float | None) -> dict[str, Any]:
    """`each`: per million predictions, or per run or update."""
    chosen = {"phase": phase}
    joules = _sum(families, "tailrace_energy_joules_total", chosen)
    cost = _sum(families, "tailrace_cost_total", chosen)
    of = 1e6 if phase == "inference" else 1
    each = of / done if done else None
    return {
        "done": done,
        "joules": joules,
        "sources": _values(families, "tailrace_energy_joules_total", "source", chosen),
        "cost": cost,
        "currency": next(iter(_values(families, "tailrace_cost_total", "currency", chosen)), None),
        "cpu_s": _sum(families, "tailrace_compute_seconds_total", chosen | {"device": "cpu"}),
        "gpu_s": _sum(families, "tailrace_compute_seconds_total", chosen | {"device": "gpu"}),
        "joules_each": None if joules is None or each is None else joules * each,
        "cost_each": None if cost is None or each is None else cost * each,
    }


def _samples(families: Iterable[Metric], name: str, labels: Mapping[str, str]) -> list[tuple[Mapping[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def _sum(families: Iterable[Metric], name: str, labels: Mapping[str, str]) -> float | None:
    found = _samples(families, name, labels)
    return sum(value for _, value in found) if found else None


def _values(families: Iterable[Metric], name: str, label: str, labels: Mapping[str, str]) -> list[str]:
    return sorted({found[label] for found, value in _samples(families, name, labels) if value and label in found})


def _mean(families: list[Metric], name: str) -> float | None:
    count = _sum(families, f"{name}_count", {})
    total = _sum(families, f"{name}_sum", {})
    return total / count if count and total is not None else None
