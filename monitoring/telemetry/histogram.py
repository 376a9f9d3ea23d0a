"""A Prometheus histogram that takes many values in one call, so that a batch of any size costs one call."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

_FEW = 64  # values up to which a loop is faster than arrays


class BatchHistogram(Collector):
    """Histogram without labels. `buckets`: upper bounds in ascending order; the bucket +Inf is added."""

    def __init__(self, name: str, meaning: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._meaning = name, meaning
        self._bounds = list(map(float, buckets))
        self._labels = [*map(str, self._bounds), "+Inf"]
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: Sequence[float], weight: int = 1) -> None:
        """Count these values, each `weight` times."""
        if len(values) <= _FEW:
            with self._lock:
                for value in values:
                    self._counts[bisect_left(self._bounds, value)] += weight
                self._sum += sum(values) * weight
            return
        array = np.asarray(values, np.float64)
        places = np.searchsorted(self._bounds, array)
        added = np.bincount(places, minlength=len(self._counts)).tolist()
        with self._lock:
            self._counts = [count + more * weight for count, more in zip(self._counts, added, strict=True)]
            self._sum += float(array.sum()) * weight

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The family without values."""
        yield HistogramMetricFamily(self._name, self._meaning)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family with its cumulative counts; the registry calls this at each scrape."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        yield HistogramMetricFamily(
            self._name, self._meaning, buckets=list(zip(self._labels, counts, strict=True)), sum_value=total
        )
