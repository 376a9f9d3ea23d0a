"""Consumer lag: records that a group has not committed yet, and the time for which they have waited.

The log is asked when the metrics are scraped; nothing is measured in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tailrace.monitoring.telemetry.metrics import LAG_RECORDS, LAG_SECONDS
from tailrace.streams.log.base import Batch, Log, LogError, TopicPartition

_SAMPLE = 64  # records of a batch whose timestamps are read: the newest need not be exact to a millisecond
_log = structlog.get_logger(__name__)


class Reached:
    """Progress of a reader in time, by partition. One thread calls `took` for each batch, another calls `waited`.

    A record that waits was written after the newest record taken, and after the reader last stood at the partition's
    end. The later of these two times counts, so that replayed records with old timestamps do not appear as lag.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._newest: dict[tuple[str, int], float] = {}  # timestamp of the newest record taken, unix seconds
        self._ended: set[tuple[str, int]] = set()  # partitions at whose end the reader stands
        self._left: dict[tuple[str, int], float] = {}  # time at which the reader last stood at the end of the others
        self._read = 0.0  # time of the last read

    def took(self, batch: Batch) -> None:
        """Record the newest timestamps and the ends reached by the batch that a read returned."""
        before, self._read = self._read, self._clock()
        records = batch.records
        if records:
            sample = records[:: len(records) // _SAMPLE | 1]  # an odd step meets partitions that take turns
            newest = {(record.topic, record.partition): record.timestamp / 1000 for record in (*sample, records[-1])}
            self._newest.update(newest)
            left = self._ended & newest.keys()
            self._left.update(dict.fromkeys(left, before))
            self._ended = self._ended - left
        self._ended |= batch.at_end.keys()

    def forget(self) -> None:
        """Forget the progress in all partitions, because a rebalance or an abort has changed the positions."""
        self._newest, self._ended, self._left = {}, set(), {}

    def waited(self, at: TopicPartition) -> float | None:
        """Return the longest time in seconds that an unread record of a partition can have waited; None if unknown."""
        known = [self._read] if at in self._ended else []
        known += [times[at] for times in (self._newest, self._left) if at in times]
        return max(0.0, self._clock() - max(known)) if known else None


class LagCollector(Collector):
    """Collector of `tailrace_lag_records` and `tailrace_lag_seconds` by partition.

    `held` returns the partitions that this process reads. Each member of a group exports only those, so that every
    waiting record is counted once, and a standby without partitions exports no lag. Without `held` all partitions of
    the group are exported: for a group with a single reader, and for a look from outside.

    Without `reached` no seconds are exported. Nothing is exported while the log does not answer.
    """

    def __init__(
        self,
        log: Log,
        group: str,
        topics: Sequence[str],
        reached: Reached | None = None,
        held: Callable[[], Collection[TopicPartition]] | None = None,
    ) -> None:
        self._log, self._group, self._topics, self._reached, self._held = log, group, topics, reached, held

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families without values, so that registering the collector does not ask the log."""
        yield LAG_RECORDS.gauge()
        yield LAG_SECONDS.gauge()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the positions from the log; yield the lag families, with a sample for each partition."""
        records, seconds = LAG_RECORDS.gauge(), LAG_SECONDS.gauge()
        held = None if self._held is None else self._held()
        try:
            for topic in self._topics:
                for at, lag in self._lag(topic, held).items():
                    labels = [topic, str(at.partition)]
                    records.add_metric(labels, lag)
                    if self._reached and (waited := self._reached.waited(at) if lag else 0.0) is not None:
                        seconds.add_metric(labels, waited)
        except LogError as error:
            _log.warning("lag unknown", group=self._group, error=str(error))
            return
        yield records
        yield seconds

    def _lag(self, topic: str, held: Collection[TopicPartition] | None) -> dict[TopicPartition, int]:
        if held is not None and not any(at.topic == topic for at in held):
            return {}
        committed = self._log.committed(self._group, [topic])
        begin = self._log.begin_positions(topic)
        ends = self._log.end_positions(topic)
        return {
            at: max(0, end - max(begin[at], committed[at].offset if at in committed else 0))
            for at, end in ends.items()
            if held is None or at in held
        }
