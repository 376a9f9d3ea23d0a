"""What an operator does by hand, from the command line or the console: promote, roll back."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tailrace.app.factory import trusted_keys
from tailrace.app.settings import Settings
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import UserError
from tailrace.retrain.control.publisher import Publisher
from tailrace.streams.log.base import Log


@contextmanager
def operator(log: Log, pipeline: Pipeline, settings: Settings) -> Iterator[Publisher]:
    """A publisher that can promote and roll back. Raises TopicMissing, BadKey."""
    topic = pipeline.topics.models
    log.end_positions(topic)  # tells of a missing topic before a writer is made
    publisher = Publisher(log, topic, f"{pipeline.name}-operator", trusted_keys(settings))
    try:
        yield publisher
    finally:
        publisher.close()


def promote(publisher: Publisher, version: int, reason: str) -> None:
    """Make a release the champion. Raises UnknownRelease, Refused."""
    publisher.promote(version, getpass.getuser(), reason, time.time())


def rollback(publisher: Publisher, reason: str) -> int:
    """Make the champion's parent the champion; its version. Raises UserError, UnknownRelease, Refused."""
    if publisher.models.champion == 0:
        raise UserError("the base rate serves: there is nothing to roll back to")
    return publisher.rollback(getpass.getuser(), reason, time.time())
