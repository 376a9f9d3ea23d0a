"""Lag: how many records a group has not yet taken, and how long they have waited. Asked of the log when somebody looks,
so it costs nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tailrace.monitoring.telemetry.metrics import LAG_RECORDS, LAG_SECONDS
from tailrace.streams.log.base import Batch, Log, LogError, TopicPartition

_LOOKED_AT = 64  # records of a batch: the newest of a partition need not be exact to a millisecond
_log = structlog.get_logger(__name__)


class Reached:
    """How far a reader has come in time, by partition: told of each batch, asked by another thread.

    What waits was written after the newest record taken, and after the reader last stood at the partition's end: the
    later of the two counts, so that replayed records of old times are not taken for old lag.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._newest: dict[tuple[str, int], float] = {}  # when the newest record taken was written
        self._ended: set[tuple[str, int]] = set()  # at whose end the reader stands
        self._left: dict[tuple[str, int], float] = {}  # when it last stood at the end of others
        self._read = 0.0  # the last read

    def took(self, batch: Batch) -> None:
        """What a read returned."""
        before, self._read = self._read, self._clock()
        records = batch.records
        if records:
            sample = records[:: len(records) // _LOOKED_AT | 1]  # an odd step meets partitions that take turns
            found = {(record.topic, record.partition): record.timestamp / 1000 for record in (*sample, records[-1])}
            self._newest.update(found)
            left = self._ended & found.keys()
            self._left.update(dict.fromkeys(left, before))
            self._ended = self._ended - left
        self._ended |= batch.at_end

    def forget(self) -> None:
        """Partitions go, or are read again."""
        self._newest, self._ended, self._left = {}, set(), {}

    def waited(self, at: TopicPartition) -> float | None:
        """Seconds that whatever is not taken of a partition has waited at most; None where nothing is known."""
        known = [self._read] if at in self._ended else []
        known += [times[at] for times in (self._newest, self._left) if at in times]
        return max(0.0, self._clock() - max(known)) if known else None


class LagCollector(Collector):
    """`tailrace_lag_records` and `_seconds` by partition; absent while the log does not answer.
    `metrics.registry.register` it.

    Without `reached` there are no seconds; where it knows nothing, there are none of a partition with records waiting.
    """

    def __init__(self, log: Log, group: str, topics: Sequence[str], reached: Reached | None = None) -> None:
        self._log, self._group, self._topics, self._reached = log, group, topics, reached

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The families without values: registering asks nothing of the log."""
        yield LAG_RECORDS.gauge()
        yield LAG_SECONDS.gauge()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What the registry calls for each scrape."""
        records, seconds = LAG_RECORDS.gauge(), LAG_SECONDS.gauge()
        try:
            for topic in self._topics:
                for at, lag in self._lag(topic).items():
                    labels = [topic, str(at.partition)]
                    records.add_metric(labels, lag)
                    if self._reached and (waited := self._reached.waited(at) if lag else 0.0) is not None:
                        seconds.add_metric(labels, waited)
        except LogError as error:
            _log.warning("lag unknown", group=self._group, error=str(error))
            return
        yield records
        yield seconds

    def _lag(self, topic: str) -> dict[TopicPartition, int]:
        committed = self._log.committed(self._group, [topic])
        begin = self._log.begin_positions(topic)
        ends = self._log.end_positions(topic)
        return {
            at: max(0, end - max(begin[at], committed[at].offset if at in committed else 0)) for at, end in ends.items()
        }
