"""One event, followed through the topics: what was predicted for it, by which release, and what it taught.

    event -> prediction (by a release) -> labels -> example -> the first release that learned it

Predictions, labels and examples lie where their id's hash says, so one partition of each is read. The event is found at
the position that its prediction names. Manifests are read as they are, not verified: `models verify` does that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from tailrace.app.factory import join_labels
from tailrace.declaration.event import to_seconds
from tailrace.declaration.label import Winner
from tailrace.explain.story import (
    Happened,
    Joined,
    Labelled,
    Learnable,
    Place,
    Predicted,
    Refusal,
    Scorer,
    Story,
    teaching,
    verdict,
)
from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.join.state import deadline
from tailrace.streams.join.step import label_codec
from tailrace.streams.log.base import Log, TopicPartition
from tailrace.streams.log.browse import readable
from tailrace.streams.log.codec import Codec
from tailrace.streams.log.dead_letter_replay import dead_letters
from tailrace.streams.log.records import Example, Prediction, Record, Source

if TYPE_CHECKING:
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.retrain.control.model_topic import Models

T = TypeVar("T")


def follow(log: Log, pipeline: Pipeline, models: Models, id: str) -> Story:
    """Read what the topics tell of an event. Raises TopicMissing."""
    topics, key = pipeline.topics, id.encode()
    prediction = _first(log, log.partition_of(topics.predictions, key), key, Prediction)
    example = _first(log, log.partition_of(topics.examples, key), key, Example)
    said = prediction or example
    event = _at(log, topics.events, said[0].source) if said else _sent(log, topics.events, key)
    labels = _labels(log, pipeline, id, said[0].time if said else None, example[0] if example else None)
    taught, untaught = None, ""
    if example:
        place = Place.of(example[1])
        taught = teaching(map(models.manifest, models.registry.releases), place)
        untaught = "" if taught else _untaught(log, pipeline, place)
    return Story(
        id=id,
        event=event,
        prediction=_predicted(said[0], prediction and prediction[1]) if said else None,
        release=_scorer(said[0].release, models) if said else None,
        labels=labels,
        example=_learnable(*example) if example else None,
        taught=taught,
        untaught=untaught,
        refused=list(_refused(log, pipeline, key)),
    )


def _records(log: Log, at: TopicPartition) -> Iterator[Record]:
    begin, end = log.begin_positions(at.topic)[at], log.end_positions(at.topic)[at]
    for batch in log.scan(at, begin, end):
        yield from batch


def _first(log: Log, at: TopicPartition, key: bytes, kind: type[T]) -> tuple[T, Record] | None:
    """The first record of this key that can be read: later ones repeat it."""
    codec = Codec(kind)
    for record in _records(log, at):
        if record.key == key and (items := codec.decode([record]).items):
            return items[0], record
    return None


def _at(log: Log, topic: str, source: Source) -> Happened:
    at = TopicPartition(topic, source.partition)
    if log.begin_positions(topic).get(at, 0) <= source.offset:
        for batch in log.scan(at, source.offset, source.offset + 1):
            for record in batch:
                return Happened(Place.of(record), readable(record).value)
    return Happened(Place(topic, source.partition, source.offset), None)


def _sent(log: Log, topic: str, key: bytes) -> Happened | None:
    """The event that nobody has scored, if it is keyed by its id."""
    found = (record for record in _records(log, log.partition_of(topic, key)) if record.key == key)
    record = next(found, None)
    return None if record is None else Happened(Place.of(record), readable(record).value)


def _labels(log: Log, pipeline: Pipeline, id: str, event_time: float | None, made: Example | None) -> list[Labelled]:
    """All label records of the id, whatever their key."""
    key, wins = id.encode(), pipeline.policy.wins
    at = log.partition_of(join_labels(pipeline), key)
    about = [record for record in _records(log, at) if record.key == key or key in (record.value or b"")]
    items, kept, _ = label_codec(pipeline.label.fields).decode(about)
    closes = None if event_time is None else deadline(event_time, pipeline.policy.wait)
    done, told = _joined(log, pipeline, at), list[Labelled]()
    for item, record in zip(items, kept, strict=True):
        if item.id != id:
            continue
        time = record.timestamp / 1000 if item.time is None else to_seconds(item.time)
        place = Place.of(record)
        counts, why = verdict(record.offset, (item.label, time), closes, wins, made, done)
        if counts and wins is not Winner.MEAN and any(label.counts for label in told):
            counts, why = False, "does not count: it repeats the one that does"
        told.append(Labelled(place, item.label, time, counts, why))
    return told


def _joined(log: Log, pipeline: Pipeline, labels: TopicPartition) -> Joined:
    predictions = TopicPartition(pipeline.topics.predictions, labels.partition)
    done = log.committed(f"{pipeline.name}.joiner", [labels.topic, predictions.topic])
    if labels not in done:
        return Joined()
    mark = Bookmark.parse(done[predictions].metadata) if predictions in done else None
    closed = mark.watermark if mark else None
    return Joined(done[labels].offset, -math.inf if closed is None else closed)


def _predicted(said: Prediction | Example, record: Record | None) -> Predicted:
    return Predicted(Place.of(record) if record else None, said.time, said.scores, said.release)


def _scorer(version: int, models: Models) -> Scorer:
    manifest = models.find(version)
    if manifest is None:
        return Scorer(version, version == 0, "the base rate of the declaration" if version == 0 else "")
    made = manifest.reason, manifest.created, manifest.examples, manifest.trained_through, manifest.ranges
    return Scorer(version, True, *made)


def _learnable(example: Example, record: Record) -> Learnable:
    return Learnable(Place.of(record), example.label, example.label_time, example.implicit)


def _untaught(log: Log, pipeline: Pipeline, place: Place) -> str:
    at = TopicPartition(place.topic, place.partition)
    done = log.committed(f"{pipeline.name}.retrainer", [place.topic]).get(at)
    if done is None or place.offset >= done.offset:
        return "waits for the retrainer, for an update or for a run"
    return "the retrainer has read it, but no release that is still there has learned it"


def _refused(log: Log, pipeline: Pipeline, key: bytes) -> Iterator[Refusal]:
    for letter in dead_letters(log, pipeline.read_topics()):
        if letter.record.key == key:
            yield Refusal(letter.name, letter.source, letter.reason, letter.detail)
