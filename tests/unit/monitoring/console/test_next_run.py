"""When the next run comes, in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tailrace.declaration.triggers import Age, Drift, Labels, Schedule, Trigger
from tailrace.monitoring.console.next_run import upcoming

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("triggers", "clock", "told"),
    [
        ([], "wall", None),
        ([Schedule("8 12 * * *")], "wall", "next retraining in 8 m"),
        ([Schedule("8 12 * * *")], "event", "next retraining at 01 Mar 12:08 event time"),
        ([Schedule("0 5 * * *"), Age("2h")], "wall", "next retraining in 1 h"),
        ([Age("30m")], "wall", "next retraining now"),
        ([Labels(500), Drift()], "wall", "next retraining after 380 more labels or on drift"),
        ([Labels(100)], "wall", "next retraining after 0 more labels"),
    ],
)
def test_what_comes_next_is_told(triggers: list[Trigger], clock: str, told: str | None) -> None:
    """The soonest instant, then what else may bring a run; instants of event time are told as such."""
    assert upcoming(triggers, labels=120, champion_since=NOON - 3600, now=NOON, clock=clock) == told
