"""Comparison of inference and training by the metrics of the roles: compute, latency, data, hardware, energy, cost.

All figures are measured since the roles were started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tailrace.errors import Exit, TailraceError
from tailrace.monitoring.telemetry.scrape import MetricSample, MetricSamples, fetch_metrics, parse_metrics

_TIMEOUT_S = 10.0
_MILLION = 1e6
_HARDWARE = ("machine", "processor", "cores", "gpu")  # labels of tailrace_hardware_info
PURPOSE = {
    "inference": "predict every event once, without delay",
    "training": "learn from labels that arrive later",
}


class NoMetrics(TailraceError):
    """The metrics of a role cannot be read; the message names the address and the fix."""

    exit_code = Exit.UNREACHABLE


def comparison(urls: Sequence[str]) -> dict[str, Any]:
    """Read the `/metrics` of all roles and return {"inference": {...}, "training": {...}}, ready for JSON.

    Durations are seconds; a latency without an observation is None. Raises NoMetrics.
    """
    return compare_samples(MetricSamples(sample for url in urls for sample in _scraped(url)))


def compare_samples(samples: MetricSamples) -> dict[str, Any]:
    """Return the comparison for samples of all roles: see `comparison`."""
    predictions = samples.total("tailrace_events_total", outcome="predicted")
    runs, updates = (
        samples.total(name, outcome="published") for name in ("tailrace_retrain_runs_total", "tailrace_updates_total")
    )
    return {
        "inference": {
            **_side(samples, "inference"),
            "latency": {"of": "an event, from its read to the commit of its prediction"}
            | _latency(samples, "tailrace_prediction_seconds"),
            "end_to_end": {"of": "an event, from its event time to that commit"}
            | _latency(samples, "tailrace_end_to_end_seconds"),
            "stages_mean_s": _scoring(samples),
            "data": {"events": int(predictions), "dead_letters": int(_dead_letters(samples))},
            "per_million_predictions": _per(samples, "inference", predictions / _MILLION),
        },
        "training": {
            **_side(samples, "training"),
            "latency": {"of": "an online update, from the arrival of its labels to its release"}
            | _latency(samples, "tailrace_update_seconds"),
            "run_latency": {"of": "a run, from its trigger to its report"}
            | _latency(samples, "tailrace_retrain_seconds"),
            "data": {
                "examples": int(samples.total("tailrace_examples_total")),
                "labels_learned_online": int(samples.total("tailrace_updated_labels_total")),
                "rows_trained_in_runs": int(samples.total("tailrace_retrain_rows_total")),
            },
            "published": {"updates": int(updates), "runs": int(runs)},
            "per_retraining": _per(samples, "training", updates + runs),
        },
    }


def _side(samples: MetricSamples, phase: str) -> dict[str, Any]:
    compute = samples.by("device", "tailrace_compute_seconds_total", phase=phase)
    sources = samples.by("source", "tailrace_energy_joules_total", phase=phase)
    hardware = {
        tuple(sample.labels[key] for key in _HARDWARE) for sample in samples.of("tailrace_hardware_info", phase=phase)
    }
    return {
        "purpose": PURPOSE[phase],
        "compute": {f"{device}_seconds": seconds for device, seconds in sorted(compute.items())},
        "hardware": [dict(zip(_HARDWARE, words, strict=True)) for words in sorted(hardware)],
        "energy": {"joules": sum(sources.values()), "sources": sources},
        "cost": samples.by("currency", "tailrace_cost_total", phase=phase),
    }


def _latency(samples: MetricSamples, name: str) -> dict[str, Any]:
    return {"p50_s": samples.quantile(0.5, name), "p99_s": samples.quantile(0.99, name)}


def _scoring(samples: MetricSamples) -> dict[str, Any]:
    """Mean seconds of each stage of scoring, for one batch; None for a stage without a batch."""
    stages = samples.by("stage", "tailrace_stage_seconds_sum")
    counts = samples.by("stage", "tailrace_stage_seconds_count")
    return {stage: stages[stage] / counts[stage] if counts[stage] else None for stage in stages}


def _dead_letters(samples: MetricSamples) -> float:
    return samples.total("tailrace_events_total", outcome="dead_letter")


def _per(samples: MetricSamples, phase: str, count: float) -> dict[str, Any] | None:
    """Compute, energy and cost of a phase divided by `count`; None if it is 0."""
    if not count:
        return None
    joules = samples.total("tailrace_energy_joules_total", phase=phase)
    cpu = samples.total("tailrace_compute_seconds_total", phase=phase, device="cpu")
    costs = samples.by("currency", "tailrace_cost_total", phase=phase)
    return {
        "cpu_seconds": cpu / count,
        "joules": joules / count,
        "cost": {currency: cost / count for currency, cost in costs.items()},
    }


def _scraped(url: str) -> Iterator[MetricSample]:
    try:
        samples = list(parse_metrics(fetch_metrics(url, _TIMEOUT_S)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NoMetrics(
            f"the metrics at {url} cannot be read ({reason}): is the role running, and does it log this address?"
        ) from None
    yield from samples
