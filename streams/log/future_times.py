"""Limit for event and label times in the future (pure). A time far ahead would close every label window."""

from __future__ import annotations

FUTURE_TOLERANCE_S = 86_400.0


def latest_allowed_time(reference: float) -> float:
    """Return the newest acceptable time of a record: a day after `reference`. Both in unix seconds.

    The reference is the current time for events and the timestamp of the record for labels. A record whose time is
    later becomes a dead letter with the reason `future_time`.
    """
    return reference + FUTURE_TOLERANCE_S
