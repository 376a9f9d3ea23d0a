"""Number of records in topics, without the control records that Kafka's transactions leave among them.

The offsets of a topic count control records too: one in each partition that a transaction wrote to, so a quiet topic
can hold as many of them as records. A RecordCount reads the newest stretch of each partition and applies the share of
records found there to the offsets that it did not read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tailrace.streams.log.base import Log, Reader, TopicPartition

_STRETCH = 200  # offsets of a partition that are read where nothing is known of it, or too much has come
_MOST = 2_000  # offsets of a partition that one look reads at most
_READ_S = 0.5  # seconds that one look reads at most
_REMEMBERED = 20_000  # offsets that the share is measured over


class _Share:
    """Records per offset of a topic, measured over the newest offsets."""

    def __init__(self) -> None:
        self._records = self._offsets = 0.0

    def add(self, records: int, offsets: int) -> None:
        self._records, self._offsets = self._records + records, self._offsets + offsets
        if self._offsets > _REMEMBERED:
            self._records, self._offsets = self._records / 2, self._offsets / 2

    @property
    def value(self) -> float:
        return self._records / self._offsets if self._offsets else 1.0


class RecordCount:
    """Running count of the records of topics, Kafka's control records left out.

    Counted exactly: the newest 200 offsets of a partition at the first look, and from then on every offset. Estimated:
    older offsets, and all but the newest 200 where more than 2,000 offsets came between two looks.
    """

    def __init__(self, log: Log, topics: Sequence[str]) -> None:
        self._log, self._topics = log, tuple(topics)
        self._reader: Reader | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._counts: dict[TopicPartition, float] = {}  # records below each position
        self._shares = {topic: _Share() for topic in self._topics}

    def look(self) -> dict[str, int]:
        """Count on to the present end of each topic; return topic -> records. Raises TopicMissing, Unreachable."""
        try:
            return self._look()
        except BaseException:
            self.close()
            raise

    def between(self, topic: str, start: Mapping[int, int]) -> int:
        """Estimate the number of records from `start` (partition -> offset) to the positions of the last look."""
        offsets = sum(max(0, n - start.get(at.partition, 0)) for at, n in self._positions.items() if at.topic == topic)
        return round(offsets * self._shares[topic].value)

    def close(self) -> None:
        """Free the reader; the next look opens another one."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _look(self) -> dict[str, int]:
        ends = {at: end for topic in self._topics for at, end in self._log.end_positions(topic).items()}
        skipped = self._skip(ends)
        if self._reader is None:
            self._reader = self._log.reader(self._topics, start=self._positions)
        elif skipped:
            self._reader.seek({at: self._positions[at] for at in skipped})
        self._read(self._reader, ends, dict(self._positions))
        for at, offsets in skipped.items():
            self._counts[at] = self._counts.get(at, 0.0) + offsets * self._shares[at.topic].value
        totals = dict.fromkeys(self._topics, 0.0)
        for at, count in self._counts.items():
            totals[at.topic] += count
        return {topic: round(total) for topic, total in totals.items()}

    def _skip(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Move to the newest stretch of partitions that are new or far behind. Return the offsets skipped."""
        skipped: dict[TopicPartition, int] = {}
        begins = {
            topic: self._log.begin_positions(topic) for topic in {at.topic for at in ends if at not in self._positions}
        }
        for at, end in ends.items():
            position = self._positions.get(at)
            if position is None or end - position > _MOST:
                begin = begins[at.topic][at] if position is None else position
                self._positions[at] = max(begin, end - _STRETCH)
                skipped[at] = self._positions[at] - begin
        return skipped

    def _read(self, reader: Reader, ends: Mapping[TopicPartition, int], before: Mapping[TopicPartition, int]) -> None:
        records = dict.fromkeys(ends, 0)
        deadline = time.monotonic() + _READ_S
        while any(self._positions[at] < end for at, end in ends.items()) and time.monotonic() < deadline:
            batch = reader.read(_MOST, deadline - time.monotonic())
            for record in batch.records:
                at = TopicPartition(record.topic, record.partition)
                records[at] += 1
                self._positions[at] = record.offset + 1
            self._positions |= batch.at_end
        for at, count in records.items():
            self._counts[at] = self._counts.get(at, 0.0) + count
            self._shares[at.topic].add(count, self._positions[at] - before[at])
