"""Errors of a live model.

TailraceError
+-- BadEvent        an event does not fit the declaration
+-- NotFollowing    a live model that was never started is asked for scores
+-- NotLoaded       a release was not loaded in time

Errors of the log (`tailrace.streams.log.base`), `BadKey` and `Refused` come from the packages that raise them.
"""

from __future__ import annotations

from tailrace.errors import TailraceError


class BadEvent(TailraceError, ValueError):
    """An event does not fit the declaration; the message holds its index and the field."""


class NotFollowing(TailraceError):
    """A live model was asked for scores before it was started."""


class NotLoaded(TailraceError, TimeoutError):
    """A release was neither loaded nor refused within the time-out."""
