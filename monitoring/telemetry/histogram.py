"""A histogram that takes many values at once: one call a batch, whatever its size."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

_FEW = 64  # values up to which a loop is quicker than arrays


class BatchHistogram(Collector):
    """`buckets`: their upper bounds, growing; one without a bound is added."""

    def __init__(self, name: str, meaning: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._meaning = name, meaning
        self._bounds = list(map(float, buckets))
        self._words = [*map(str, self._bounds), "+Inf"]
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: Sequence[float], weight: int = 1) -> None:
        """Count these, each for `weight` like it."""
        if len(values) <= _FEW:
            with self._lock:
                for value in values:
                    self._counts[bisect_left(self._bounds, value)] += weight
                self._sum += sum(values) * weight
            return
        array = np.asarray(values, np.float64)
        places = np.searchsorted(self._bounds, array)
        found = np.bincount(places, minlength=len(self._counts)).tolist()
        with self._lock:
            self._counts = [known + more * weight for known, more in zip(self._counts, found, strict=True)]
            self._sum += float(array.sum()) * weight

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The family without values."""
        yield HistogramMetricFamily(self._name, self._meaning)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the registry calls for each scrape."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        yield HistogramMetricFamily(
            self._name, self._meaning, buckets=list(zip(self._words, counts, strict=True)), sum_value=total
        )
