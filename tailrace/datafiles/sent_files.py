"""Memory of the files that `tailrace send` has sent: a committed position for each, whose metadata is the time.

It is kept with the positions of the log's groups, for as long as the log keeps those (Kafka: 7 days by default).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadData
from tailrace.streams.log.base import Committed, Log, LogError, TopicPartition


def digest_of(file: Path) -> str:
    """Return the beginning of the SHA-256 of a file's content and name, hex. Raises BadData."""
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256")
    except OSError as error:
        raise BadData(f"cannot read {str(file)!r} ({error.strerror}): check the path") from None
    digest.update(file.name.encode())
    return digest.hexdigest()[:16]


def sent_before(log: Log, pipeline: Pipeline, digest: str, parts: Sequence[str]) -> float | None:
    """Return the last time at which one of these parts ("events", "labels") of a file was sent, unix seconds."""
    topic = pipeline.topics.events
    try:
        found = [log.committed(_group(pipeline, digest, part), [topic]) for part in parts]
    except LogError as error:
        if type(error) is not LogError:  # unreachable: no answer is not a refusal
            raise
        return None
    times = [float(at.metadata) for marks in found for at in marks.values() if at.metadata]
    return max(times, default=None)


def mark_sent(log: Log, pipeline: Pipeline, digest: str, parts: Sequence[str]) -> None:
    """Remember that these parts of a file were sent now, if the log permits it."""
    topic = pipeline.topics.events
    writer = log.writer()
    try:
        for part in parts:
            reader = log.reader([topic], group=_group(pipeline, digest, part), alone=True)
            try:
                writer.commit({TopicPartition(topic, 0): Committed(0, f"{time.time():.3f}")}, reader)
                writer.flush()
            finally:
                reader.close()
    except LogError as error:
        if type(error) is not LogError:
            raise
    finally:
        writer.close()


def _group(pipeline: Pipeline, digest: str, part: str) -> str:
    return f"{pipeline.name}.sent.{part}.{digest}"
