"""Dead letters of a pipeline: list, find and replay.

A replay commits its positions as a consumer group, one for each reason, in the transaction that writes the originals.
So each dead letter is replayed once, and a replay of one reason leaves the others for later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import asdict

from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import Exit, UserError
from tailrace.streams.log.base import Committed, Delivery, Log, TopicPartition
from tailrace.streams.log.browse import Readable, readable, scan
from tailrace.streams.log.dead_letters import (
    ADDED,
    DETAIL,
    LENGTH,
    REASON,
    SHA256,
    SOURCE,
    dead_letter_topic,
    header,
    revived,
)
from tailrace.streams.log.records import Out, Record

_BATCH = 500


class DeadLetter(NamedTuple):
    """A record of a dead-letter topic, with its headers as properties."""

    record: Record

    @property
    def name(self) -> str:
        """Name for users: topic/partition/offset, within the dead-letter topic."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"

    @property
    def reason(self) -> str:
        """Reason, one of DEAD_LETTER_REASONS."""
        return header(self.record, REASON)

    @property
    def detail(self) -> str:
        """Explanation of the reason."""
        return header(self.record, DETAIL)

    @property
    def source(self) -> str:
        """Place of the original: topic/partition/offset."""
        return header(self.record, SOURCE)

    @property
    def length(self) -> int | None:
        """Bytes of the original value, where the dead letter holds only the beginning of it; else None."""
        return int(text) if (text := header(self.record, LENGTH)).isdigit() else None

    def readable(self) -> Readable:
        """Decode the original record for display; the headers that the dead letter added are left out."""
        decoded = readable(self.record)
        return decoded._replace(headers={name: value for name, value in decoded.headers.items() if name not in ADDED})


def topics_of(pipeline: Pipeline, topic: str | None) -> list[str]:
    """Return the topics whose records can become dead letters: all that a pipeline reads, or only `topic`.

    `topic`: a short name such as "events", a full topic name, or the name of a dead-letter topic. Raises UserError for
    any other name.
    """
    topics = pipeline.read_topics()
    if topic is None:
        return topics
    name = asdict(pipeline.topics).get(topic.replace("-", "_"), topic.removesuffix(".dlq"))
    if name not in topics:
        raise UserError(f"{topic!r} has no dead letters: write events or labels", Exit.USAGE)
    return [name]


def dead_letters(log: Log, topics: Sequence[str], reason: str | None = None) -> Iterator[DeadLetter]:
    """Yield the dead letters of these topics, topic by topic; with `reason`, only dead letters with this reason."""
    for topic in topics:
        for record in scan(log, dead_letter_topic(topic)):
            dead_letter = DeadLetter(record)
            if reason in (None, dead_letter.reason):
                yield dead_letter


def find(log: Log, name: str) -> DeadLetter:
    """Return the dead letter at `name`, written topic/partition/offset. Raises UserError."""
    topic, _, rest = name.partition("/")
    partition, _, offset = rest.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise UserError(
            f"{name!r} is not a dead letter's name: write topic/partition/offset, as `tailrace dlq ls` does",
            Exit.USAGE,
        )
    for batch in log.scan(TopicPartition(topic, int(partition)), int(offset), int(offset) + 1):
        for record in batch:
            return DeadLetter(record)
    raise UserError(f"there is no dead letter {name!r}: `tailrace dlq ls` lists the existing ones")


class Replayed(NamedTuple):
    """Numbers of originals written again, and of originals that are gone: cut dead letters without their source."""

    written: int
    gone: int


def replay(log: Log, pipeline: str, topic: str, reason: str | None = None) -> Replayed:
    """Write the original records of a topic's dead letters to the topic again, each once.

    With `reason`, only dead letters with this reason are replayed. The original of a cut dead letter is read at its
    source, if the topic still holds it.
    """
    reasons = sorted({dead_letter.reason for dead_letter in dead_letters(log, [topic], reason)})
    outcomes = [_replay_reason(log, pipeline, topic, reason) for reason in reasons]
    return Replayed(sum(outcome.written for outcome in outcomes), sum(outcome.gone for outcome in outcomes))


def _original(log: Log, letter: DeadLetter, topic: str) -> Out | None:
    """Return the record to write again; None if the dead letter is cut and its source is gone."""
    if letter.length is None:
        return revived(letter.record, topic)
    source, partition, offset = letter.source.rsplit("/", 2)
    if source != topic or int(offset) < log.begin_positions(topic).get(TopicPartition(topic, int(partition)), 0):
        return None
    for batch in log.scan(TopicPartition(topic, int(partition)), int(offset), int(offset) + 1):
        for record in batch:
            if hashlib.sha256(record.value or b"").hexdigest() != header(letter.record, SHA256):
                return None  # the topic was created again
            return Out(topic, record.key, record.value, record.headers, record.timestamp)
    return None


def _replay_reason(log: Log, pipeline: str, topic: str, reason: str) -> Replayed:
    dlq = dead_letter_topic(topic)
    group = f"{pipeline}.dlq-replay.{reason}"
    ends = log.end_positions(dlq)
    writer = log.writer(f"{pipeline}-dlq-replay", Delivery.EXACTLY_ONCE)
    try:
        reader = log.reader([dlq], group=group, alone=True)
        try:
            written = gone = 0
            positions = {tp: at.offset for tp, at in log.committed(group, [dlq]).items()}
            while any(positions.get(tp, log.begin_positions(dlq)[tp]) < end for tp, end in ends.items()):
                batch = reader.read(_BATCH, timeout=1.0)
                letters = [letter for letter in map(DeadLetter, batch.records) if letter.reason == reason]
                found = [_original(log, letter, topic) for letter in letters]
                originals = [original for original in found if original is not None]
                positions |= {TopicPartition(r.topic, r.partition): r.offset + 1 for r in batch.records}
                positions |= batch.at_end
                writer.write(originals)
                writer.commit({tp: Committed(offset) for tp, offset in positions.items()}, reader)
                written += len(originals)
                gone += len(found) - len(originals)
            writer.flush()
            return Replayed(written, gone)
        finally:
            reader.close()
    finally:
        writer.close()
