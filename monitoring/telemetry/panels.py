"""What a dashboard is made of (pure), and the queries that occur again and again."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Query: TypeAlias = tuple[str, str]
"""PromQL and the legend."""


class Panel(NamedTuple):
    """One picture. `unit`: Grafana's word; `width` of 24 columns; `named`: the legend is what is to be read."""

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
    """What a counter grows by in a second, summed."""
    return f"sum{_by(by)}(rate({name}{match and '{' + match + '}'}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "") -> str:
    """A quantile of a histogram."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket[$__rate_interval])))"


def quantiles(name: str) -> tuple[Query, ...]:
    """The median and what one of a hundred exceeds."""
    return (quantile(0.5, name), "p50"), (quantile(0.99, name), "p99")


def mean(name: str, by: str = "") -> str:
    """The mean of a histogram."""
    return f"{rate(f'{name}_sum', by)} / {rate(f'{name}_count', by)}"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
