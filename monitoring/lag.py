"""Lag: how many records a group has not yet taken. Asked of the log when somebody looks, so it costs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streams.log import Log, LogError

_log = structlog.get_logger(__name__)


class LagCollector(Collector):
    """`tailrace_lag_records{topic}`; absent while the log does not answer. `metrics.registry.register` it."""

    def __init__(self, log: Log, group: str, topics: Sequence[str]) -> None:
        self._log, self._group, self._topics = log, group, topics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What the registry calls for each scrape."""
        family = GaugeMetricFamily(
            "tailrace_lag_records", "Records behind the group's committed position.", labels=["topic"]
        )
        try:
            for topic in self._topics:
                family.add_metric([topic], self._lag(topic))
        except LogError as error:
            _log.warning("lag_unknown", group=self._group, error=str(error))
            return
        yield family

    def _lag(self, topic: str) -> int:
        committed = self._log.committed(self._group, [topic])
        begin = self._log.begin_positions(topic)
        ends = self._log.end_positions(topic)
        return sum(
            max(0, end - max(begin[at], committed[at].offset if at in committed else 0)) for at, end in ends.items()
        )
