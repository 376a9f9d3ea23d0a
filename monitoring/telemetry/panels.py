"""Building blocks of dashboards (pure): panels, rows, and frequent queries as PromQL text."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Query: TypeAlias = tuple[str, str]
"""A PromQL expression and its legend."""


class Panel(NamedTuple):
    """One panel. `unit` is Grafana's name of it, `width` is in columns of 24; a `named` stat shows its legend."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 8
    least: float | None = 0
    named: bool = False


class PanelRow(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def rate(name: str, by: str = "", match: str = "") -> str:
    """Query for the increase of a counter per second, summed over series, or for each value of the label `by`."""
    return f"sum{_by(by)}(rate({name}{match and '{' + match + '}'}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "") -> str:
    """Query for a quantile of a histogram, 0 < share < 1."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket[$__rate_interval])))"


def quantiles(name: str) -> tuple[Query, ...]:
    """Queries for the median and the 99 % quantile of a histogram, each with its legend."""
    return (quantile(0.5, name), "p50"), (quantile(0.99, name), "p99")


def mean(name: str, by: str = "") -> str:
    """Query for the mean of a histogram."""
    return f"{rate(f'{name}_sum', by)} / {rate(f'{name}_count', by)}"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
