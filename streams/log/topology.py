"""Topics of a pipeline (pure)."""

from __future__ import annotations

from tailrace.declaration.pipeline import Pipeline
from tailrace.streams.log.base import Topic
from tailrace.streams.log.dead_letters import MAX_RECORD_BYTES, dead_letter_topic


def topology(pipeline: Pipeline, partitions: int, retention_s: float | None = None) -> list[Topic]:
    """Return every topic of a pipeline, dead-letter topics included."""
    t = pipeline.topics
    return [
        *(Topic(topic, partitions, retention_s=retention_s) for topic in (*pipeline.read_topics(), t.examples)),
        *(Topic(dead_letter_topic(topic), 1, max_record_bytes=MAX_RECORD_BYTES) for topic in pipeline.read_topics()),
        Topic(t.models, 1, compacted=True),
    ]
