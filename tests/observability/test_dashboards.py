"""Dashboards, rules and docs/metrics.md; only some tests need Prometheus tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.prometheus_server import ROOT, SHIPPED, promtool

from tailrace.monitoring.telemetry.dashboards import DASHBOARDS, build
from tailrace.monitoring.telemetry.generate import generated
from tailrace.monitoring.telemetry.metrics import COLLECTED, Metrics

FILES = sorted((ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json"))
FOREIGN = re.compile(r"up|ALERTS|scrape_duration_seconds|process_\w+")  # of Prometheus and its client
RANGE = re.compile(r"\[([^\]]*)\]")


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels except the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def names() -> set[str]:
    """Names of all series that a role can serve."""
    groups = [group.defined for group in Metrics().groups().values()]
    series = set[str]()
    for metric in (metric for metrics in (COLLECTED, *groups) for metric in metrics):
        series |= {metric.name} if metric.kind != "histogram" else {f"{metric.name}_{end}" for end in _PARTS}
    return series


_PARTS = ("bucket", "sum", "count")


def metrics_in(expression: str) -> set[str]:
    """Names of the metrics in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    bare = re.sub(r"\b(by|on|group_left|without)\s*\([^)]*\)", "", bare)
    words = re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)
    return {word for word in words if word not in {"or", "and", "unless", "offset", "e6", "m", "sum", "max", "avg"}}


def test_generated_files_are_current() -> None:
    """docs/metrics.md and the dashboards match the code, and there is no other dashboard."""
    for path, text in generated().items():
        assert path.read_text() == text, f"{path.name} is old: run python -m tailrace.monitoring.telemetry.generate"
    assert {path.stem for path in FILES} == {dashboard.uid for dashboard in DASHBOARDS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_are_complete(path: Path) -> None:
    """Each panel has a title, a description, a unit, the provisioned data source and its own position."""
    dashboard = json.loads(path.read_text())
    source = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/prometheus.yml").read_text())
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_expressions_use_the_rate_interval_and_known_metrics(dashboard: Any) -> None:
    """Ranges are Grafana's rate interval, so that every zoom and scrape interval works; every metric is documented."""
    known = names()
    for panel in panels(build(dashboard)):
        for target in panel["targets"]:
            expression = target["expr"]
            assert set(RANGE.findall(expression)) <= {"$__rate_interval"}, panel["title"]
            assert ("rate(" in expression or "increase(" in expression) == ("$__rate_interval" in expression)
            unknown = {name for name in metrics_in(expression) - known if not FOREIGN.fullmatch(name)}
            assert not unknown, panel["title"]


def test_alerts_have_a_page_and_pages_an_alert() -> None:
    """Each alert has a severity, a description and a runbook that names it; each runbook has an alert."""
    rules = yaml.safe_load((SHIPPED / "rules" / "alerts.yml").read_text())["groups"][0]["rules"]
    pages = set()
    for rule in rules:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
        page = ROOT / "docs" / "runbooks" / rule["annotations"]["runbook_url"].rpartition("/")[2]
        assert f"`{rule['alert']}`" in page.read_text()
        pages.add(page)
    assert pages == set((ROOT / "docs" / "runbooks").glob("*.md"))


def test_promtool_accepts_configuration_and_rules() -> None:
    """The shipped configuration and rules are valid."""
    promtool("check", "config", SHIPPED / "prometheus.yml")
    promtool("check", "rules", "--lint-fatal", *sorted((SHIPPED / "rules").iterdir()))


def test_alerts_fire_when_they_should() -> None:
    """Each alert fires on its test series and is silent otherwise; recording rules compute costs."""
    promtool("test", "rules", Path(__file__).with_name("rules_test.yml"))
