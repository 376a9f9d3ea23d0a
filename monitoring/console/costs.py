"""Training beside inference (pure): energy, cost and compute, from what the roles' /metrics say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tailrace.monitoring.telemetry.scrape import Samples, parsed

PHASES = ("inference", "training")


def costs(texts: Iterable[str]) -> dict[str, Any]:
    """The figures of each phase, summed over roles; what nobody measures is None. `texts`: bodies of /metrics."""
    samples = Samples(sample for text in texts for sample in parsed(text))
    events = _sum(samples, "tailrace_events_total", outcome="predicted")
    runs = samples.total("tailrace_retrain_runs_total", outcome="published")
    updates = samples.total("tailrace_updates_total", outcome="published")
    done = {"inference": events, "training": runs + updates}
    return {
        "phases": {phase: _phase(samples, phase, done[phase]) for phase in PHASES},
        "swap_pause_s": _mean(samples, "tailrace_swap_pause_seconds"),
    }


def _phase(samples: Samples, phase: str, done: float | None) -> dict[str, Any]:
    """`each`: per million predictions, or per release by a run or an update."""
    joules = _sum(samples, "tailrace_energy_joules_total", phase=phase)
    cost = _sum(samples, "tailrace_cost_total", phase=phase)
    of = 1e6 if phase == "inference" else 1
    each = of / done if done else None
    return {
        "done": done,
        "joules": joules,
        "sources": _values(samples, "tailrace_energy_joules_total", "source", phase=phase),
        "cost": cost,
        "currency": next(iter(_values(samples, "tailrace_cost_total", "currency", phase=phase)), None),
        "cpu_s": _sum(samples, "tailrace_compute_seconds_total", phase=phase, device="cpu"),
        "gpu_s": _sum(samples, "tailrace_compute_seconds_total", phase=phase, device="gpu"),
        "joules_each": None if joules is None or each is None else joules * each,
        "cost_each": None if cost is None or each is None else cost * each,
    }


def _sum(samples: Samples, name: str, **labels: str) -> float | None:
    found = [sample.value for sample in samples.of(name, **labels)]
    return sum(found) if found else None


def _values(samples: Samples, name: str, label: str, **labels: str) -> list[str]:
    return sorted(value for value, total in samples.by(label, name, **labels).items() if total)


def _mean(samples: Samples, name: str) -> float | None:
    count, total = _sum(samples, f"{name}_count"), _sum(samples, f"{name}_sum")
    return total / count if count and total is not None else None
