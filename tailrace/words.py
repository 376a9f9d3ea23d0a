"""Values in words for people (pure)."""

from __future__ import annotations

from datetime import UTC, datetime


def when(seconds: float | None) -> str:
    """A time, in UTC."""
    if seconds is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)
