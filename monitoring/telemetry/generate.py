"""Generator of docs/metrics.md and Grafana's dashboards: `python -m tailrace.monitoring.telemetry.generate`.

A test checks that the files in the repository are current.
"""

from __future__ import annotations

import json
from pathlib import Path

from tailrace.monitoring.telemetry.dashboards import DASHBOARDS, build
from tailrace.monitoring.telemetry.definitions import MetricDefinition
from tailrace.monitoring.telemetry.metrics import COLLECTED, Metrics

ROOT = Path(__file__).resolve().parents[2]
_HEAD = """# Metrics

Each role serves its metrics at `/metrics` in the text format of Prometheus, at the address that
`monitoring.host` and `monitoring.port` set. A role serves the metrics of its own work only.
Durations are in seconds, times in unix seconds, sizes in bytes. Metrics are updated once for each
batch, commit, swap or run, never for each event. Counters start at 0.

The release is not a label of frequent counters. To see predictions by release, join:

    sum by (release) (
      rate(tailrace_events_total[5m])
      * on (instance) group_left (release) tailrace_model_info{role="champion"}
    )

`docker compose up` starts Prometheus with recording rules and alerts (`monitoring/prometheus/`; each
alert has a page in [runbooks](runbooks/)) and Grafana with three dashboards (`monitoring/grafana/`).
`tailrace compare` shows training beside inference without either of them.

`python -m tailrace.monitoring.telemetry.generate` generates this page from the code.
"""
_FOOT = """
## Every role: its process

`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`,
`process_max_fds` and `process_start_time_seconds`, from prometheus-client on Linux.
"""


def metrics_page() -> str:
    """Content of docs/metrics.md."""
    sections = {"Every role: lag, compute, energy and cost": list(COLLECTED)}
    sections = {name: group.defined for name, group in Metrics().groups().items()} | sections
    return _HEAD + "".join(_section(name, defined) for name, defined in sections.items()) + _FOOT


def _section(name: str, metrics: list[MetricDefinition]) -> str:
    lines = [f"\n## {name}\n", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Content of every generated file by its path."""
    files = {ROOT / "docs" / "metrics.md": metrics_page()}
    for dashboard in DASHBOARDS:
        path = ROOT / "monitoring" / "grafana" / "dashboards" / f"{dashboard.uid}.json"
        files[path] = json.dumps(build(dashboard), indent=1) + "\n"
    return files


def main() -> None:
    """Write docs/metrics.md and Grafana's dashboards."""
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
