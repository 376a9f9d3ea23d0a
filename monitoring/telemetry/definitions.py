"""Building blocks of metric definitions: name, kind, meaning, labels. `telemetry.metrics` defines all metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tailrace.monitoring.telemetry.histogram import BatchHistogram


class MetricDefinition(NamedTuple):
    """One metric as docs/metrics.md shows it. `name` is the exposed name."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()

    def gauge(self) -> GaugeMetricFamily:
        """An empty gauge family, for a value that is measured at each scrape."""
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        """An empty counter family, for a value that is measured at each scrape."""
        return CounterMetricFamily(self.name, self.meaning, labels=self.labels)


class MetricGroup:
    """Base class of the metrics of one activity, such as scoring or the join. `defined` lists them for docs/metrics.md.

    Series with known label values exist from the start with the value 0, so that a first increase is visible.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.defined: list[MetricDefinition] = []

    def _defined(self, name: str, kind: str, meaning: str, labels: Iterable[str] = ()) -> None:
        self.defined.append(MetricDefinition(name, kind, meaning, tuple(labels)))

    def _counter(self, name: str, meaning: str, **known: Sequence[str]) -> Counter:
        """Add a counter. `known`: its labels, each with all its possible values."""
        self._defined(name, "counter", meaning, known)
        counter = Counter(name, meaning, tuple(known), registry=self._registry)
        for values in product(*known.values()) if known else ():
            counter.labels(*values)
        return counter

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._defined(name, "gauge", meaning, labels)
        return Gauge(name, meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], **known: Sequence[str]) -> Histogram:
        """Add a histogram. `known`: see `_counter`."""
        self._defined(name, "histogram", meaning, known)
        histogram = Histogram(name, meaning, tuple(known), buckets=buckets, registry=self._registry)
        for values in product(*known.values()) if known else ():
            histogram.labels(*values)
        return histogram

    def _tally(self, name: str, meaning: str, buckets: Sequence[float]) -> BatchHistogram:
        self._defined(name, "histogram", meaning)
        return BatchHistogram(name, meaning, buckets, self._registry)
