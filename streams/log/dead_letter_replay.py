"""Dead letters of a pipeline: listing, finding and replaying them.

A replay remembers what it replayed as the committed positions of one consumer group a reason, in the transaction that
writes the originals. So a letter is replayed once, and replaying those of one reason leaves the others for later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import asdict

from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import Exit, UserError
from tailrace.streams.log.base import Committed, Delivery, Log, TopicPartition
from tailrace.streams.log.browse import Readable, readable, scan
from tailrace.streams.log.dead_letters import DETAIL, REASON, SOURCE, dead_letter_topic, header, revived
from tailrace.streams.log.records import Record

_BATCH = 500


class Letter(NamedTuple):
    """A record of a dead-letter topic."""

    record: Record

    @property
    def name(self) -> str:
        """How the user names it: topic/partition/offset, within the dead-letter topic."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"

    @property
    def reason(self) -> str:
        """One word: why it could not be used."""
        return header(self.record, REASON)

    @property
    def detail(self) -> str:
        """The same, for people."""
        return header(self.record, DETAIL)

    @property
    def source(self) -> str:
        """Where the original lay: topic/partition/offset."""
        return header(self.record, SOURCE)

    def readable(self) -> Readable:
        """The original, for people."""
        shown = readable(self.record)
        ours = (REASON, DETAIL, SOURCE)
        return shown._replace(headers={name: value for name, value in shown.headers.items() if name not in ours})


def topics_of(pipeline: Pipeline, topic: str | None) -> list[str]:
    """The topics whose dead letters are meant: all that a pipeline reads, or the one named. Raises UserError."""
    topics = pipeline.read_topics()
    if topic is None:
        return topics
    name = asdict(pipeline.topics).get(topic.replace("-", "_"), topic.removesuffix(".dlq"))
    if name not in topics:
        raise UserError(f"{topic!r} has no dead letters: write events or labels", Exit.USAGE)
    return [name]


def letters(log: Log, topics: Sequence[str], reason: str | None = None) -> Iterator[Letter]:
    """The dead letters of these topics, with this reason only if one is given."""
    for topic in topics:
        for record in scan(log, dead_letter_topic(topic)):
            letter = Letter(record)
            if reason in (None, letter.reason):
                yield letter


def find(log: Log, name: str) -> Letter:
    """The letter that a user named. Raises UserError."""
    topic, _, rest = name.partition("/")
    partition, _, offset = rest.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise UserError(
            f"{name!r} names no dead letter: write topic/partition/offset, as `tailrace dlq ls` does", Exit.USAGE
        )
    for batch in log.scan(TopicPartition(topic, int(partition)), int(offset), int(offset) + 1):
        for record in batch:
            return Letter(record)
    raise UserError(f"there is no dead letter {name!r}: `tailrace dlq ls` lists those there are")


def replay(log: Log, pipeline: str, topic: str, reason: str | None = None) -> int:
    """Write the originals of a topic's dead letters to it again, those not replayed before; returns how many."""
    reasons = sorted({letter.reason for letter in letters(log, [topic], reason)})
    return sum(_replay_reason(log, pipeline, topic, reason) for reason in reasons)


def _replay_reason(log: Log, pipeline: str, topic: str, reason: str) -> int:
    dead = dead_letter_topic(topic)
    group = f"{pipeline}.dlq-replay.{reason}"
    ends = log.end_positions(dead)
    writer = log.writer(f"{pipeline}-dlq-replay", Delivery.EXACTLY_ONCE)
    try:
        reader = log.reader([dead], group=group, alone=True)
        try:
            count = 0
            positions = {tp: at.offset for tp, at in log.committed(group, [dead]).items()}
            while any(positions.get(tp, log.begin_positions(dead)[tp]) < end for tp, end in ends.items()):
                batch = reader.read(_BATCH, timeout=1.0)
                chosen = [revived(record, topic) for record in batch.records if Letter(record).reason == reason]
                positions |= {TopicPartition(r.topic, r.partition): r.offset + 1 for r in batch.records}
                positions |= batch.at_end
                writer.write(chosen)
                writer.commit({tp: Committed(offset) for tp, offset in positions.items()}, reader)
                count += len(chosen)
            writer.flush()
            return count
        finally:
            reader.close()
    finally:
        writer.close()
