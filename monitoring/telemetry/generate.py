"""`python -m telemetry.generate`: writes what is made of the code, docs/metrics.md and Grafana's dashboards.

A test checks that they are current.
"""

from __future__ import annotations

import json
from pathlib import Path

from tailrace.monitoring.telemetry.dashboards import DASHBOARDS, build
from tailrace.monitoring.telemetry.definitions import MetricDefinition
from tailrace.monitoring.telemetry.metrics import COLLECTED, Metrics

ROOT = Path(__file__).resolve().parents[2]
_HEAD = """# Metrics

Each role serves its own at `/metrics`, in Prometheus' text format; `monitoring.host` and `monitoring.port` say where.
A role has what it does and nothing else. All durations are seconds, all times unix seconds, all sizes bytes. Metrics
are fed once a batch, commit, swap or run, never once an event, and what has never happened is 0.

No release is a label of what is counted often. To see predictions by release, join:

    sum by (release) (
      rate(tailrace_events_total[5m])
      * on (instance) group_left (release) tailrace_model_info{role="champion"}
    )

`docker compose up` brings Prometheus with recording rules and alerts (`monitoring/prometheus/`, a page for each alert
in [runbooks](runbooks/)) and Grafana with three dashboards (`monitoring/grafana/`). `tailrace compare` shows training
beside inference without them.

This page is made of the code by `python -m tailrace.monitoring.telemetry.generate`.
"""
_FOOT = """
## Every role: its process

`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`,
`process_max_fds` and `process_start_time_seconds`, as prometheus-client has them on Linux.
"""


def metrics_page() -> str:
    """docs/metrics.md."""
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
    """Every generated file and what must be in it."""
    files = {ROOT / "docs" / "metrics.md": metrics_page()}
    for dashboard in DASHBOARDS:
        path = ROOT / "monitoring" / "grafana" / "dashboards" / f"{dashboard.uid}.json"
        files[path] = json.dumps(build(dashboard), indent=1) + "\n"
    return files


def main() -> None:
    """Write them."""
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
