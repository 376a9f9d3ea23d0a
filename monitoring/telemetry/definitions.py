"""How metrics are declared: a name, a kind, one meaning, labels. `telemetry.metrics` has all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tailrace.monitoring.telemetry.histogram import BatchHistogram

WAITS = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 3600.0, 86_400.0)
"""Seconds that something may have to wait: milliseconds to a day."""


class MetricDefinition(NamedTuple):
    """One metric as docs/metrics.md shows it; `name` as it is exposed."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()

    def gauge(self) -> GaugeMetricFamily:
        """An empty family, for what is found out when somebody looks."""
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        """The same of a counter."""
        return CounterMetricFamily(self.name, self.meaning, labels=self.labels)


class MetricGroup:
    """Metrics that belong together, in one registry; each is remembered in `defined`.

    A counter's children of known labels exist from the start: what has never happened is 0, and an increase from 0 is
    seen.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.defined: list[MetricDefinition] = []

    def _defined(self, name: str, kind: str, meaning: str, labels: Iterable[str] = ()) -> None:
        self.defined.append(MetricDefinition(name, kind, meaning, tuple(labels)))

    def _counter(self, name: str, meaning: str, **known: Sequence[str]) -> Counter:
        """`known`: its labels, each with all the values that it can have."""
        self._defined(name, "counter", meaning, known)
        counter = Counter(name, meaning, tuple(known), registry=self._registry)
        for values in product(*known.values()) if known else ():
            counter.labels(*values)
        return counter

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._defined(name, "gauge", meaning, labels)
        return Gauge(name, meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], **known: Sequence[str]) -> Histogram:
        """See `_counter`."""
        self._defined(name, "histogram", meaning, known)
        histogram = Histogram(name, meaning, tuple(known), buckets=buckets, registry=self._registry)
        for values in product(*known.values()) if known else ():
            histogram.labels(*values)
        return histogram

    def _tally(self, name: str, meaning: str, buckets: Sequence[float]) -> BatchHistogram:
        self._defined(name, "histogram", meaning)
        return BatchHistogram(name, meaning, buckets, self._registry)
