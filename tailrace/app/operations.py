"""Operations that an operator starts from the command line or the console: promote and roll back.

The console also replays dead letters through this module; `tailrace dlq replay` does so by itself.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tailrace.app.factory import trusted_keys
from tailrace.app.settings import Settings
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import UserError, error_line
from tailrace.retrain.control.publisher import Publisher
from tailrace.streams.log.base import Log
from tailrace.streams.log.dead_letter_replay import replay, topics_of

if TYPE_CHECKING:
    from tailrace.monitoring.console.server import OperatorActions, PromoteRequest, ReplayRequest, RollbackRequest

_Request = TypeVar("_Request")


@contextmanager
def operator(log: Log, pipeline: Pipeline, settings: Settings) -> Iterator[Publisher]:
    """Open a publisher that can promote and roll back. Raises TopicMissing, BadKey."""
    topic = pipeline.topics.models
    log.end_positions(topic)  # raises TopicMissing before a writer is created
    publisher = Publisher(log, topic, f"{pipeline.name}-operator", trusted_keys(settings))
    try:
        yield publisher
    finally:
        publisher.close()


def promote(publisher: Publisher, version: int, reason: str) -> None:
    """Make a release the champion. Raises UnknownRelease, Refused."""
    publisher.promote(version, getpass.getuser(), reason, time.time())


def rollback(publisher: Publisher, reason: str) -> int:
    """Make the champion's parent the champion and return its version. Raises UserError, UnknownRelease, Refused."""
    if publisher.models.champion == 0:
        raise UserError("the champion is release 0 (the base rate): there is nothing to roll back to")
    return publisher.rollback(getpass.getuser(), reason, time.time())


def console_actions(log: Log, pipeline: Pipeline, settings: Settings) -> OperatorActions:
    """Return the actions behind the buttons of the console. Each returns the line that the page shows."""
    from tailrace.monitoring.console.server import (
        OperatorActions,  # here, so that the command line does not load aiohttp
    )

    def promote_release(request: PromoteRequest) -> str:
        with operator(log, pipeline, settings) as publisher:
            promote(publisher, request.version, request.reason)
        return f"release {request.version} is now the champion"

    def roll_back(request: RollbackRequest) -> str:
        with operator(log, pipeline, settings) as publisher:
            before, after = publisher.models.champion, rollback(publisher, request.reason)
        return f"champion: {before} -> {after}"

    def replay_dead_letters(request: ReplayRequest) -> str:
        topics = topics_of(pipeline, request.topic)
        done = [replay(log, pipeline.name, topic, request.reason) for topic in topics]
        gone = sum(topic.gone for topic in done)
        lost = f"; of {gone:,} large records only the beginning is left" if gone else ""
        return f"{sum(topic.written for topic in done):,} replayed{lost}"

    return OperatorActions(
        _failing_in_one_line(promote_release),
        _failing_in_one_line(roll_back),
        _failing_in_one_line(replay_dead_letters),
    )


def _failing_in_one_line(action: Callable[[_Request], str]) -> Callable[[_Request], str]:
    """Wrap an action so that every failure becomes ActionFailed with one line for the user."""

    def wrapped(request: _Request) -> str:
        from tailrace.monitoring.console.server import ActionFailed

        try:
            return action(request)
        except Exception as error:
            raise ActionFailed(error_line(error)[0]) from error

    return wrapped
