"""Lookup of one event in the topics of a pipeline.

    event -> prediction (by a release) -> labels -> example -> the first release that learned it

The partition of predictions, labels and examples follows from the hash of the id, so one partition of each is read. The
prediction holds the position of the event. Signatures of manifests are not verified; `tailrace models verify` does so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from tailrace.app.factory import join_labels
from tailrace.declaration.event import to_seconds
from tailrace.declaration.label import Winner
from tailrace.explain.event_history import (
    DeadLetterStep,
    EventHistory,
    EventStep,
    ExampleStep,
    JoinerProgress,
    LabelStep,
    Place,
    PredictionStep,
    ReleaseStep,
    label_verdict,
    learning_step,
)
from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.join.label_codec import label_codec
from tailrace.streams.join.state import deadline
from tailrace.streams.log.base import Log, TopicPartition
from tailrace.streams.log.browse import readable
from tailrace.streams.log.codec import Codec
from tailrace.streams.log.dead_letter_replay import dead_letters
from tailrace.streams.log.records import Example, Prediction, Record, Source

if TYPE_CHECKING:
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.retrain.control.model_topic import Models

T = TypeVar("T")


def follow(log: Log, pipeline: Pipeline, models: Models, id: str) -> EventHistory:
    """Read the history of the event `id` from the topics. Raises TopicMissing."""
    id = _canonical(pipeline, id)
    topics, key = pipeline.topics, id.encode()
    prediction = _first(log, log.partition_of(topics.predictions, key), key, Prediction)
    example = _first(log, log.partition_of(topics.examples, key), key, Example)
    scored = prediction or example  # an example repeats the fields of its prediction
    event = _event_at(log, topics.events, scored[0].source) if scored else _unscored_event(log, topics.events, key)
    labels = _labels(log, pipeline, id, scored[0].time if scored else None, example[0] if example else None)
    learning, not_learned = None, ""
    if example:
        place = Place.of(example[1])
        learning = learning_step(map(models.manifest, models.registry.releases), place)
        not_learned = "" if learning else _reason_not_learned(log, pipeline, place)
    return EventHistory(
        id=id,
        event=event,
        prediction=_prediction(scored[0], prediction and prediction[1]) if scored else None,
        release=_release(scored[0].release, models) if scored else None,
        labels=labels,
        example=_example(*example) if example else None,
        taught=learning,
        untaught=not_learned,
        refused=list(_dead_letters(log, pipeline, key)),
    )


def _records(log: Log, at: TopicPartition) -> Iterator[Record]:
    begin, end = log.begin_positions(at.topic)[at], log.end_positions(at.topic)[at]
    for batch in log.scan(at, begin, end):
        yield from batch


def _first(log: Log, at: TopicPartition, key: bytes, kind: type[T]) -> tuple[T, Record] | None:
    """Return the first record with this key that can be decoded; later records repeat it."""
    codec = Codec(kind)
    for record in _records(log, at):
        if record.key == key and (items := codec.decode([record]).items):
            return items[0], record
    return None


def _event_at(log: Log, topic: str, source: Source) -> EventStep:
    """Return the event at this position; its value is None if the record was removed."""
    at = TopicPartition(topic, source.partition)
    if log.begin_positions(topic).get(at, 0) <= source.offset:
        for batch in log.scan(at, source.offset, source.offset + 1):
            for record in batch:
                return EventStep(Place.of(record), readable(record).value)
    return EventStep(Place(topic, source.partition, source.offset), None)


def _canonical(pipeline: Pipeline, id: str) -> str:
    """Return the id as predictions have it; unchanged if it is not an id of this pipeline."""
    try:
        return pipeline.schema.id_texts([id])[0] if len(pipeline.schema.keys) == 1 else id
    except ValueError:
        return id


def _unscored_event(log: Log, topic: str, key: bytes) -> EventStep | None:
    """Return the event with this record key; None if events are not keyed by their id."""
    matches = (record for record in _records(log, log.partition_of(topic, key)) if record.key == key)
    record = next(matches, None)
    return None if record is None else EventStep(Place.of(record), readable(record).value)


def _labels(
    log: Log, pipeline: Pipeline, id: str, event_time: float | None, example: Example | None
) -> list[LabelStep]:
    """Return the steps of all label records of the id, also of records without the id as key."""
    key, wins = id.encode(), pipeline.policy.wins
    at = log.partition_of(join_labels(pipeline), key)
    candidates = [record for record in _records(log, at) if record.key == key or key in (record.value or b"")]
    items, kept, _ = label_codec(pipeline.label.fields, pipeline.schema.label_ids).decode(candidates)
    closes = None if event_time is None else deadline(event_time, pipeline.policy.wait)
    progress, steps = _joiner_progress(log, pipeline, at), list[LabelStep]()
    for item, record in zip(items, kept, strict=True):
        if item.key() != id:
            continue
        time = record.timestamp / 1000 if item.time is None else to_seconds(item.time)
        place = Place.of(record)
        counts, why = label_verdict(record.offset, (item.label, time), closes, wins, example, progress)
        if counts and wins is not Winner.MEAN and any(step.counts for step in steps):
            counts, why = False, "does not count: it repeats a label that counts"
        steps.append(LabelStep(place, item.label, time, counts, why))
    return steps


def _joiner_progress(log: Log, pipeline: Pipeline, labels: TopicPartition) -> JoinerProgress:
    predictions = TopicPartition(pipeline.topics.predictions, labels.partition)
    committed = log.committed(f"{pipeline.name}.joiner", [labels.topic, predictions.topic])
    if labels not in committed:
        return JoinerProgress()
    bookmark = Bookmark.parse(committed[predictions].metadata) if predictions in committed else None
    watermark = bookmark.watermark if bookmark else None
    return JoinerProgress(committed[labels].offset, -math.inf if watermark is None else watermark)


def _prediction(scored: Prediction | Example, record: Record | None) -> PredictionStep:
    """Return the prediction step; `record`: the prediction's own record, None if it was removed."""
    return PredictionStep(Place.of(record) if record else None, scored.time, scored.scores, scored.release)


def _release(version: int, models: Models) -> ReleaseStep:
    manifest = models.find(version)
    if manifest is None:
        return ReleaseStep(version, version == 0, "the base rate of the declaration" if version == 0 else "")
    return ReleaseStep(
        version,
        True,
        manifest.reason,
        manifest.created,
        manifest.examples,
        manifest.trained_through,
        manifest.ranges,
    )


def _example(example: Example, record: Record) -> ExampleStep:
    return ExampleStep(Place.of(record), example.label, example.label_time, example.implicit)


def _reason_not_learned(log: Log, pipeline: Pipeline, place: Place) -> str:
    """Return the reason why no kept release has learned the example at `place`."""
    at = TopicPartition(place.topic, place.partition)
    committed = log.committed(f"{pipeline.name}.retrainer", [place.topic]).get(at)
    if committed is None or place.offset >= committed.offset:
        return "waits for the retrainer's next update or run"
    return "the retrainer has read it, but no kept release has learned it"


def _dead_letters(log: Log, pipeline: Pipeline, key: bytes) -> Iterator[DeadLetterStep]:
    for dead_letter in dead_letters(log, pipeline.read_topics()):
        if dead_letter.record.key == key:
            yield DeadLetterStep(dead_letter.name, dead_letter.source, dead_letter.reason, dead_letter.detail)
