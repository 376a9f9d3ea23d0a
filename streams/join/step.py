"""The join as a step: decodes predictions and labels, and keeps one `PartitionJoin` a partition number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tailrace.declaration.event import to_seconds
from tailrace.declaration.label import JoinPolicy
from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.join.label_codec import LabelRecord, excess, label_codec
from tailrace.streams.join.label_policy import Given
from tailrace.streams.join.state import Counts, Emitted, Head, PartitionJoin
from tailrace.streams.log.base import Batch, Committed, Log, Positions, TopicPartition
from tailrace.streams.log.codec import Codec, Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.future_times import latest_allowed_time
from tailrace.streams.log.records import Out, Record


class JoinStep:
    """Step from predictions and labels to examples and dead letters.

    `target(label)` converts a label to the task's number. It raises ValueError for a label that the task does not have,
    OverflowError for a number that is too large; such a label becomes a dead letter. So does a label whose time is more
    than a day after its record's timestamp: it would close every window.

    `upstream` is for labels that reach the topic through another one: it returns True if all labels of the other topic
    have arrived. Without it, the end of the topic would not prove that no label is missing.
    """

    def __init__(
        self,
        log: Log,
        policy: JoinPolicy,
        *,
        predictions: str,
        labels: str,
        examples: str,
        target: Callable[[Any], float] = float,
        codec: Codec[LabelRecord] | None = None,
        upstream: Callable[[], bool] | None = None,
    ) -> None:
        self._log, self._policy, self._upstream = log, policy, upstream
        self._topics = (predictions, labels)
        self._examples = examples
        self._target = target
        self._heads = Codec(Head)
        self._label_codec = codec or label_codec({})
        self._joins: dict[int, PartitionJoin] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._arrived: dict[int, float] = {}  # the newest event time at a moment when upstream had nothing left
        self.counts = Counts()
        self.dead_letters: Counter[str] = Counter()
        """Number of dead letters by reason, since the step was made."""
        self.last_malformed: Malformed | None = None
        self.delays: list[float] = []
        """Seconds from event to label of the examples of the last commit."""

    def __call__(self, batch: Batch) -> list[Out]:
        """Process a batch. Return the examples that need not wait for the end of their window, and dead letters."""
        out: list[Out] = []
        predictions, labels = self._topics
        for (topic, partition), records in _by_partition(batch.records):
            join = self._joins[partition]
            if topic == predictions:
                heads, kept, malformed = self._heads.decode(records)
                emitted = join.predictions(heads, kept)
            else:
                givens, malformed = self._givens(records)
                emitted = join.labels(givens)
            self._positions[TopicPartition(topic, partition)] = records[-1].offset + 1
            out += self._outs(partition, emitted)
            if malformed:
                self.dead_letters.update(letter.reason for letter in malformed)
                self.last_malformed = malformed[0]
                out += map(dead_letter, malformed)
        for tp, end in batch.at_end.items():  # behind control records, which would else appear as records that wait
            if end > self._positions[tp]:
                self._positions[tp] = end
        self._labels_at_end([partition for topic, partition in batch.at_end if topic == labels])
        return out

    def skip(self, record: Record) -> None:
        """See `runtime.step.Step.skip`. A restart restores the state as if the record had been processed."""
        self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1

    def _labels_at_end(self, partitions: Sequence[int]) -> None:
        """Record that these partitions have no unread label at the moment; more labels may follow.

        With `upstream` this holds only up to the newest event time of an earlier call in which `upstream` gave True.
        """
        if self._upstream is None:
            for partition in partitions:
                self._joins[partition].labels_end()
            return
        for partition in partitions:
            if partition in self._arrived:
                self._joins[partition].labels_end(self._arrived.pop(partition))
        newest = {partition: join.newest_prediction for partition, join in self._joins.items()}
        if partitions and self._upstream():
            self._arrived = newest

    def before_commit(self) -> tuple[list[Out], Positions]:
        """Close the windows that can close; return their examples, and the positions to commit with their bookmarks."""
        out: list[Out] = []
        positions: dict[TopicPartition, Committed] = {}
        self.delays = []
        for partition, join in self._joins.items():
            out += self._outs(partition, join.advance(ordered=self._upstream is None))
            self.delays += join.delays
            join.delays.clear()
            pair = self._pair(partition)
            at = [self._positions[tp] for tp in pair]
            for tp, offset, mark in zip(pair, at, join.bookmarks(*at), strict=True):
                positions[tp] = Committed(offset, mark.text())
        return out, positions

    def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Rebuild the state of these partitions at their committed positions from the log, emitting nothing."""
        for partition in sorted({tp.partition for tp in committed}):
            pair = self._pair(partition)
            ends = [found.offset if (found := committed.get(tp)) else 0 for tp in pair]
            predictions, labels = (_bookmark(committed.get(tp)) for tp in pair)
            self._positions.update(zip(pair, ends, strict=True))
            self._joins[partition] = join = PartitionJoin(self._policy, self.counts)
            join.restore(
                (predictions, labels),
                ends[0],
                self._decoded_heads(self._scan(pair[0], predictions.oldest, ends[0])),
                self._decoded_givens(self._scan(pair[1], labels.oldest, ends[1])),
            )

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop the state of partitions that belong to another reader now."""
        for partition in {tp.partition for tp in partitions}:
            self._joins.pop(partition, None)
            self._arrived.pop(partition, None)
            for tp in self._pair(partition):
                self._positions.pop(tp, None)

    def held(self) -> int:
        """Return the number of predictions and early labels in memory."""
        return sum(map(len, self._joins.values()))

    def held_bytes(self) -> int:
        """Return the size in bytes of the predictions that wait for their label."""
        return sum(join.bytes for join in self._joins.values())

    def watermark(self) -> float:
        """Return the event time up to which windows have closed everywhere, unix seconds; -inf where none has."""
        return min((join.watermark for join in self._joins.values()), default=-math.inf)

    def newest(self) -> float:
        """Return the newest event time of the predictions read, unix seconds; -inf before the first."""
        return max((join.newest_prediction for join in self._joins.values()), default=-math.inf)

    def _pair(self, partition: int) -> tuple[TopicPartition, TopicPartition]:
        predictions, labels = self._topics
        return TopicPartition(predictions, partition), TopicPartition(labels, partition)

    def _scan(self, tp: TopicPartition, start: int, end: int) -> Iterator[list[Record]]:
        return self._log.scan(tp, start, end) if start < end else iter(())

    def _decoded_heads(self, batches: Iterable[list[Record]]) -> Iterator[tuple[list[Head], Sequence[Record]]]:
        for records in batches:
            heads, kept, _ = self._heads.decode(records)
            yield heads, kept

    def _decoded_givens(self, batches: Iterable[list[Record]]) -> Iterator[tuple[str, Given]]:
        for records in batches:
            yield from self._givens(records)[0]

    def _givens(self, records: Sequence[Record]) -> tuple[list[tuple[str, Given]], list[Malformed]]:
        items, kept, malformed = self._label_codec.decode(records)
        givens: list[tuple[str, Given]] = []
        for item, record in zip(items, kept, strict=True):
            if reason := excess(item):
                malformed.append(Malformed(record, "too_large", reason))
                continue
            try:
                number = self._target(item.label)
            except (ValueError, OverflowError) as error:  # an integer may have a thousand digits
                malformed.append(Malformed(record, "unknown_label", str(error)))
                continue
            written = record.timestamp / 1000.0
            time = written if item.time is None else to_seconds(item.time)
            if time > latest_allowed_time(written):
                detail = f"label time {time:.3f} is more than a day after the record's ({written:.3f})"
                malformed.append(Malformed(record, "future_time", detail))
                continue
            givens.append((item.key(), Given(item.label, time, record.offset, number)))
        return givens, malformed

    def _outs(self, partition: int, emitted: Iterable[Emitted]) -> list[Out]:
        topic = self._examples
        return [Out(topic, id.encode(), value, partition=partition) for id, value in emitted]


def _bookmark(found: Committed | None) -> Bookmark:
    if found is None:
        return Bookmark(0)
    return Bookmark.parse(found.metadata) or Bookmark(found.offset)


def _by_partition(records: Sequence[Record]) -> Iterable[tuple[tuple[str, int], list[Record]]]:
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.topic, record.partition), []).append(record)
    return groups.items()
