"""Energy, cost and compute of inference and of training, from the /metrics of the roles (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tailrace.monitoring.telemetry.scrape import MetricSamples, parse_metrics

PHASES = ("inference", "training")


def cost_section(texts: Iterable[str]) -> dict[str, Any]:
    """Figures of each phase, summed over roles; None for a figure that no role measures. `texts`: bodies of /metrics.

    Raises ValueError for a text that is not in the format of Prometheus.
    """
    samples = MetricSamples(sample for text in texts for sample in parse_metrics(text))
    events = _sum(samples, "tailrace_events_total", outcome="predicted")
    runs = samples.total("tailrace_retrain_runs_total", outcome="published")
    updates = samples.total("tailrace_updates_total", outcome="published")
    done = {"inference": events, "training": runs + updates}
    return {
        "phases": {phase: _phase(samples, phase, done[phase]) for phase in PHASES},
        "swap_pause_s": _mean(samples, "tailrace_swap_pause_seconds"),
    }


def _phase(samples: MetricSamples, phase: str, done: float | None) -> dict[str, Any]:
    """Figures of one phase. `*_each`: per million predictions, or per release that a run or an update published."""
    joules = _sum(samples, "tailrace_energy_joules_total", phase=phase)
    cost = _sum(samples, "tailrace_cost_total", phase=phase)
    unit = 1e6 if phase == "inference" else 1
    each = unit / done if done else None
    return {
        "done": done,
        "joules": joules,
        "sources": _label_values(samples, "tailrace_energy_joules_total", "source", phase=phase),
        "cost": cost,
        "currency": next(iter(_label_values(samples, "tailrace_cost_total", "currency", phase=phase)), None),
        "cpu_s": _sum(samples, "tailrace_compute_seconds_total", phase=phase, device="cpu"),
        "gpu_s": _sum(samples, "tailrace_compute_seconds_total", phase=phase, device="gpu"),
        "joules_each": None if joules is None or each is None else joules * each,
        "cost_each": None if cost is None or each is None else cost * each,
    }


def _sum(samples: MetricSamples, name: str, **labels: str) -> float | None:
    """Sum of the matching series; None without a series."""
    values = [sample.value for sample in samples.of(name, **labels)]
    return sum(values) if values else None


def _label_values(samples: MetricSamples, name: str, label: str, **labels: str) -> list[str]:
    """Values of a label whose series are not all 0."""
    return sorted(value for value, total in samples.by(label, name, **labels).items() if total)


def _mean(samples: MetricSamples, name: str) -> float | None:
    """Mean of a histogram; None while it is empty."""
    count, total = _sum(samples, f"{name}_count"), _sum(samples, f"{name}_sum")
    return total / count if count and total is not None else None
