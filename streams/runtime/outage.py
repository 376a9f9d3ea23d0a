"""Waiting for a log that cannot be reached: said once, with growing pauses, for any length of time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Unreachable

_PAUSES_S = (0.5, 5.0)  # first and longest pause
_log = structlog.get_logger(__name__)


def outlast(outage: Unreachable, rejoin: Callable[[], None], stop: threading.Event) -> bool:
    """Repeat `rejoin` until it raises no Unreachable; return False if `stop` is set before."""
    _log.error("waiting for the log", why=str(outage))
    pauses = Backoff(*_PAUSES_S)
    while not stop.wait(pauses.pause()):
        try:
            rejoin()
        except Unreachable:
            continue
        _log.info("the log can be reached again")
        return True
    return False
