"""Samples from the /metrics of the roles, for tools that do without Prometheus."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

_MOST_BYTES = 4 << 20
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy can reach the roles


class MetricSample(NamedTuple):
    """One value of one series."""

    name: str
    labels: Mapping[str, str]
    value: float


class MetricSamples:
    """Samples of all roles together."""

    def __init__(self, samples: Iterable[MetricSample]) -> None:
        self._by_name: dict[str, list[MetricSample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def of(self, name: str, **labels: str) -> Iterator[MetricSample]:
        """Samples of this name that have these label values."""
        for sample in self._by_name.get(name, ()):
            if all(sample.labels.get(label) == value for label, value in labels.items()):
                yield sample

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that have these label values."""
        return sum(sample.value for sample in self.of(name, **labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums by the values of `label`, of the samples of this name that have these label values."""
        sums: dict[str, float] = {}
        for sample in self.of(name, **labels):
            if label in sample.labels:
                key = sample.labels[label]
                sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    def quantile(self, share: float, name: str) -> float | None:
        """Quantile of a histogram, 0 < share < 1, interpolated within its bucket; None while it is empty."""
        buckets = self.by("le", f"{name}_bucket")
        bounds = sorted((float(le), count) for le, count in buckets.items())
        if not bounds or not bounds[-1][1]:
            return None
        wanted, below, under = share * bounds[-1][1], 0.0, 0.0
        for bound, count in bounds:
            if count >= wanted:
                if math.isinf(bound):
                    return below  # a lower bound: the value lies beyond the largest finite bucket
                return below + (bound - below) * (wanted - under) / (count - under)
            below, under = bound, count
        return None


def fetch_metrics(url: str, timeout: float) -> str:
    """Fetch the text of a role's /metrics, without a proxy. Raises OSError, ValueError."""
    with _opener.open(url, timeout=timeout) as answer:
        return str(answer.read(_MOST_BYTES).decode(errors="replace"))


def parse_metrics(text: str) -> Iterator[MetricSample]:
    """Parse the text format of Prometheus. Raises ValueError."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield MetricSample(sample.name, sample.labels, sample.value)
