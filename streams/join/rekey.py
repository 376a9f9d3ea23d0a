"""Labels under the event's id: for label topics that are keyed by something else, or by nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from tailrace.streams.join.step import label_codec
from tailrace.streams.log.base import Batch, Committed, Log, TopicPartition
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out

_EVERY_S = 1.0  # seconds between two looks: each asks the log
_FEW = 100  # records; with more to go nothing is drained, and it need not be found out what they are


class Rekey:
    """Copies label records, untouched but for the key, so that each lands in the partition of its prediction.

    The labels of one event keep their order if they came in one partition.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        topic: str,
        on_malformed: Callable[[Sequence[Malformed]], None] = lambda letters: None,
    ) -> None:
        self._codec = label_codec(fields)
        self._topic, self._on_malformed = topic, on_malformed

    def __call__(self, batch: Batch) -> list[Out]:
        """The re-keyed labels, then dead letters."""
        labels, records, malformed = self._codec.decode(batch.records)
        outs = [
            Out(self._topic, label.id.encode(), record.value, record.headers, record.timestamp)
            for label, record in zip(labels, records, strict=True)
        ]
        if malformed:
            self._on_malformed(malformed)
        return outs + [dead_letter(letter) for letter in malformed]


def drained(log: Log, group: str, topic: str, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Asks whether a group has committed all there is of a topic at this moment. More often than once a second the
    answer is no."""
    next_look = clock()

    def look() -> bool:
        nonlocal next_look
        if clock() < next_look:
            return False
        next_look = clock() + _EVERY_S
        return is_drained(log, group, topic)

    return look


def is_drained(log: Log, group: str, topic: str) -> bool:
    """Whether a group has committed all there is of a topic at this moment."""
    ends = log.end_positions(topic)
    committed = log.committed(group, [topic])
    return all(_is_empty(log, at, committed.get(at, Committed(0)).offset, end) for at, end in ends.items())


def _is_empty(log: Log, at: TopicPartition, start: int, end: int) -> bool:
    """Whether no record lies there: on Kafka the markers of transactions take offsets too."""
    return start >= end or (end - start <= _FEW and next(iter(log.scan(at, start, end)), None) is None)
