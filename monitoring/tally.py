"""A histogram that takes many values at once: one call a batch, whatever its size."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """`buckets`: their upper bounds, growing; one without a bound is added."""

    def __init__(self, name: str, meaning: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._meaning = name, meaning
        self._bounds = np.array(buckets, np.float64)
        self._words = [*map(str, map(float, buckets)), "+Inf"]
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: Sequence[float], weight: int = 1) -> None:
        """Count these, each for `weight` like it."""
        if not len(values):
            return
        array = np.asarray(values, np.float64)
        counts = np.bincount(self._bounds.searchsorted(array), minlength=len(self._counts))
        with self._lock:
            self._counts += counts * weight
            self._sum += float(array.sum()) * weight

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The family without values."""
        yield HistogramMetricFamily(self._name, self._meaning)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the registry calls for each scrape."""
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
        yield HistogramMetricFamily(
            self._name, self._meaning, buckets=list(zip(self._words, counts, strict=True)), sum_value=total
        )
