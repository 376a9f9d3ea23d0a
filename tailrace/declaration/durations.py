"""Durations and times as text (pure)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tailrace.errors import DeclarationError

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def seconds(duration: str | float) -> float:
    """Convert "12h", "30s", "1.5d" or a plain number of seconds to seconds. Raises DeclarationError."""
    if isinstance(duration, int | float):
        return float(duration)
    match = _DURATION.fullmatch(duration)
    if not match:
        raise DeclarationError(
            f'{duration!r} is not a duration: write a number and one of ms, s, m, h, d, w, such as "12h"'
        )
    return float(match[1]) * _UNITS[match[2]]


def words(seconds: float) -> str:
    """Format a duration in seconds for people, in its largest whole unit: 5,400 is "1.5 h"."""
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _UNITS[unit]), "s")
    return f"{seconds / _UNITS[unit]:,.3g} {unit}"


def utc_text(seconds: float | None) -> str:
    """Format unix seconds as UTC, such as "2024-05-01 10:59:59"; "-" for None, the number for years beyond 9999."""
    if seconds is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)
