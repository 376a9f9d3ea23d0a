"""Copies of labels under the event's id, for label topics with another key or without keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tailrace.streams.join.label_codec import LabelRecord, excess
from tailrace.streams.log.base import RECORD_BYTES, Batch, Committed, Log, TopicPartition
from tailrace.streams.log.codec import Codec, Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, size_of

_EVERY_S = 1.0  # seconds between two checks: each asks the log
_FEW = 100  # offsets; with more of them uncommitted the topic counts as not drained, and is not read


class Rekey:
    """Copies label records with the event's id as key, so that each lands in the partition of its prediction.

    The labels of one event keep their order if they came in one partition. A label whose copy would exceed `limit`, in
    bytes of key, value and headers, becomes a dead letter.
    """

    def __init__(
        self,
        codec: Codec[LabelRecord],
        topic: str,
        on_malformed: Callable[[Sequence[Malformed]], None] = lambda letters: None,
        limit: int = RECORD_BYTES,
    ) -> None:
        self._codec = codec
        self._topic, self._on_malformed, self._limit = topic, on_malformed, limit

    def __call__(self, batch: Batch) -> list[Out]:
        """Return the re-keyed labels, then dead letters."""
        labels, records, malformed = self._codec.decode(batch.records)
        outs: list[Out] = []
        for label, record in zip(labels, records, strict=True):
            out = Out(self._topic, label.key().encode(), record.value, record.headers, record.timestamp)
            reason = excess(label) or self._excess(out)
            if reason:
                malformed.append(Malformed(record, "too_large", reason))
            else:
                outs.append(out)
        if malformed:
            self._on_malformed(malformed)
        return outs + [dead_letter(letter) for letter in malformed]

    def _excess(self, out: Out) -> str:
        size = size_of(out)
        return f"its copy has {size:,} bytes, {out.topic} takes {self._limit:,}" if size > self._limit else ""


def drained(log: Log, group: str, topic: str, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Return a function that returns True if a group has committed all records of a topic.

    The function asks the log at most once a second; in between it returns False, also after it has returned True.
    """
    next_check = clock()

    def check() -> bool:
        nonlocal next_check
        if clock() < next_check:
            return False
        next_check = clock() + _EVERY_S
        return is_drained(log, group, topic)

    return check


def is_drained(log: Log, group: str, topic: str) -> bool:
    """Return True if a group has committed all records that a topic holds at this moment.

    On Kafka it may return False although only control records of transactions are left.
    """
    ends = log.end_positions(topic)
    committed = log.committed(group, [topic])
    return all(_is_empty(log, at, committed.get(at, Committed(0)).offset, end) for at, end in ends.items())


def _is_empty(log: Log, at: TopicPartition, start: int, end: int) -> bool:
    """True if no record lies in the range: on Kafka control records of transactions take offsets too."""
    return start >= end or (end - start <= _FEW and next(iter(log.scan(at, start, end)), None) is None)
