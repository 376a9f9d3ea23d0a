"""Grafana dashboards (pure): their contents, and their conversion to Grafana's classic JSON.

`python -m tailrace.monitoring.telemetry.generate` writes the JSON files in monitoring/grafana/dashboards. Edit the
modules in `boards`, not those files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tailrace.monitoring.telemetry.boards import models, operations, pipeline
from tailrace.monitoring.telemetry.panels import Panel, PanelRow

DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_WIDTH = 24  # columns of Grafana's grid
_HEIGHTS = {"stat": 4, "timeseries": 8, "table": 6}


class Dashboard(NamedTuple):
    """One dashboard. `uid` is the name of its file and part of its address."""

    uid: str
    title: str
    description: str
    rows: tuple[PanelRow, ...]


DASHBOARDS = (
    Dashboard(
        "pipeline", "Tailrace: pipeline", "Events, latency, lag, dead letters and the label join.", pipeline.ROWS
    ),
    Dashboard(
        "models",
        "Tailrace: models and training",
        "Quality, releases, retraining and drift of a pipeline.",
        models.ROWS,
    ),
    Dashboard(
        "operations",
        "Tailrace: operations",
        "Training beside inference in compute, energy and cost; processes and alerts.",
        operations.ROWS,
    ),
)


def build(dashboard: Dashboard) -> dict[str, Any]:
    """Convert a dashboard to Grafana's classic JSON."""
    return {
        "uid": f"tailrace-{dashboard.uid}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["tailrace"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": [_releases()]},
        "links": [
            {"title": "Tailrace", "type": "dashboards", "tags": ["tailrace"], "asDropdown": False, "keepTime": True}
        ],
        "panels": list(_panels(dashboard.rows)),
    }


def _panels(rows: tuple[PanelRow, ...]) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in rows:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > _WIDTH:
                top, left, height = top + height, 0, 0
            size = _HEIGHTS[panel.kind]
            yield _panel(panel, number, {"h": size, "w": panel.width, "x": left, "y": top})
            number, left, height = number + 1, left + panel.width, max(height, size)
        top += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": DATA_SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": panel.kind == "table",
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for n, (query, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": panel.least} | _style(panel), "overrides": []},
        "options": _options(panel),
    }


def _style(panel: Panel) -> dict[str, Any]:
    if panel.kind != "timeseries":
        return {}
    return {"custom": {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": True}}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "stat":
        mode = "name" if panel.named else "value_and_name" if len(panel.queries) > 1 else "value"
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": mode, "graphMode": "none"}
    return {"showHeader": True}


def _releases() -> dict[str, Any]:
    """An annotation at each swap of the serving release."""
    return {
        "name": "releases",
        "datasource": DATA_SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": 'sum by (release) (tailrace_model_info{role="champion"} unless tailrace_model_info offset 1m)',
        "titleFormat": "release {{release}}",
    }
