"""Costs of training and inference, summed over the metrics of the roles."""

from __future__ import annotations

from tailrace.monitoring.console.costs import cost_section

WORKER = """
# TYPE tailrace_events_total counter
tailrace_events_total{outcome="predicted"} 2000000.0
# TYPE tailrace_energy_joules_total counter
tailrace_energy_joules_total{phase="inference",source="estimate"} 50.0
tailrace_energy_joules_total{phase="training",source="estimate"} 0.0
# TYPE tailrace_cost_total counter
tailrace_cost_total{phase="inference",currency="EUR"} 0.5
# TYPE tailrace_compute_seconds_total counter
tailrace_compute_seconds_total{phase="inference",device="cpu"} 10.0
"""
RETRAINER = """
# TYPE tailrace_energy_joules_total counter
tailrace_energy_joules_total{phase="training",source="rapl"} 300.0
# TYPE tailrace_retrain_runs_total counter
tailrace_retrain_runs_total{outcome="published"} 2.0
tailrace_retrain_runs_total{outcome="rejected"} 9.0
# TYPE tailrace_updates_total counter
tailrace_updates_total{outcome="published"} 4.0
tailrace_updates_total{outcome="failed"} 1.0
"""


def test_costs_are_summed_over_roles() -> None:
    """Figures are summed over roles; a retraining is one that was published; a figure that no role measures is None."""
    phases = cost_section([WORKER, RETRAINER])["phases"]
    inference, training = phases["inference"], phases["training"]
    assert (inference["joules"], inference["joules_each"], inference["sources"]) == (50.0, 25.0, ["estimate"])
    assert (inference["cost_each"], inference["currency"], inference["cpu_s"]) == (0.25, "EUR", 10.0)
    assert (training["joules"], training["joules_each"], training["sources"]) == (300.0, 50.0, ["rapl"])
    assert (training["cost"], inference["gpu_s"]) == (None, None)
    assert cost_section([])["phases"]["training"]["joules"] is None
