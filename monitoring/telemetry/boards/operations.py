"""The dashboard of operations (pure): training compared with inference, processes, alerts."""

from __future__ import annotations

from tailrace.monitoring.telemetry.panels import Panel, PanelRow, quantiles, rate

_PREDICTED = rate("tailrace_events_total", match='outcome="predicted"')
_INFERENCE_JOULES = rate("tailrace_energy_joules_total", match='phase="inference"')
_INFERENCE_COST = rate("tailrace_cost_total", match='phase="inference"')
_TRAINING_JOULES = 'sum(increase(tailrace_energy_joules_total{phase="training"}[$__rate_interval]))'
_TRAINING_COST = 'sum(increase(tailrace_cost_total{phase="training"}[$__rate_interval]))'
_RETRAINED = (
    '(sum(increase(tailrace_retrain_runs_total{outcome="published"}[$__rate_interval])) '
    '+ sum(increase(tailrace_updates_total{outcome="published"}[$__rate_interval])))'
)

ROWS = (
    PanelRow(
        "Training beside inference",
        (
            Panel(
                "Compute", "Cores and GPUs in use. The joiner counts as training.", "short",
                ((rate("tailrace_compute_seconds_total", "phase, device"), "{{phase}}, {{device}}"),),
            ),
            Panel(
                "Power", "Watts by phase and source: a counter, or an estimate.", "watt",
                ((rate("tailrace_energy_joules_total", "phase, source"), "{{phase}}, {{source}}"),),
            ),
            Panel(
                "Cost per hour", "Cost of cores and energy at the configured prices.", "none",
                ((f"3600 * {rate('tailrace_cost_total', 'phase, currency')}", "{{phase}}, {{currency}}"),),
            ),
            Panel(
                "Latency of inference", "From reading an event to the commit of its prediction.", "s",
                quantiles("tailrace_prediction_seconds"),
            ),
            Panel(
                "Latency of training", "An online update, from the arrival of its labels to its release.", "s",
                quantiles("tailrace_update_seconds"),
            ),
            Panel(
                "Data handled", "Events predicted, and examples read for training.", "ops",
                ((_PREDICTED, "inference: events"), (rate("tailrace_examples_total"), "training: examples")),
            ),
            Panel(
                "Energy per million predictions", "At the present rates of energy and predictions.", "joule",
                ((f"1e6 * {_INFERENCE_JOULES} / {_PREDICTED}", "inference"),), width=6,
            ),
            Panel(
                "Cost per million predictions", "At the present rates, in the configured currency.", "none",
                ((f"1e6 * {_INFERENCE_COST} / {_PREDICTED}", "inference"),), width=6,
            ),
            Panel(
                "Energy per retraining", "A retraining is a run or an online update that was published.", "joule",
                ((f"{_TRAINING_JOULES} / {_RETRAINED}", "training"),), width=6,
            ),
            Panel(
                "Cost per retraining", "In the configured currency.", "none",
                ((f"{_TRAINING_COST} / {_RETRAINED}", "training"),), width=6,
            ),
            Panel(
                "Hardware", "Machine that does the work of each phase.", "none",
                (("max by (phase, machine, processor, cores, gpu) (tailrace_hardware_info)", ""),), "table", 24,
            ),
        ),
    ),
    PanelRow(
        "Processes",
        (
            Panel(
                "Up", "1 while the role answers scrapes, else 0.", "none",
                (('up{job="tailrace"}', "{{component}} {{instance}}"),), width=6,
            ),
            Panel(
                "Processor", "Cores in use by the process of each role, without its children.", "short",
                (("sum by (component) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{component}}"),), width=6,
            ),
            Panel(
                "Memory", "Resident memory of the process of each role.", "bytes",
                (("max by (component) (process_resident_memory_bytes)", "{{component}}"),), width=6,
            ),
            Panel(
                "Open files", "Open file descriptors of each role as a share of its limit.", "percentunit",
                (("max by (component) (process_open_fds / process_max_fds)", "{{component}}"),), width=6,
            ),
        ),
    ),
    PanelRow(
        "Alerts",
        (
            Panel(
                "Firing", "Alerts that fire now; each has a page in docs/runbooks.", "short",
                (('sum by (alertname) (ALERTS{alertstate="firing"}) or vector(0)', "{{alertname}}"),), width=12,
            ),
            Panel(
                "Scrapes", "Duration of a scrape of each role.", "s",
                (('max by (component) (scrape_duration_seconds{job="tailrace"})', "{{component}}"),), width=12,
            ),
        ),
    ),
)  # fmt: skip
