"""Losses are logged at once, then rarely, and none goes uncounted."""

from __future__ import annotations

from itertools import pairwise

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tailrace.monitoring.telemetry.loss_notice import EVERY_S, LossNotice, cause_of
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.records import Record

RECORD = Record("events", 0, 7, 0, None, b"{}")


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 50)), min_size=1, max_size=40))
def test_every_loss_is_counted_in_one_line_of_a_minute(steps: list[tuple[float, int]]) -> None:
    """The first loss is logged at once; lines are a minute apart, and their counts add up to all losses."""
    now = 100.0
    notice = LossNotice("events were not used", "tailrace dlq ls", clock=lambda: now)
    times: list[float] = []
    with structlog.testing.capture_logs() as lines:
        for elapsed, count in steps:
            now += elapsed
            before = len(lines)
            notice.add(count, f"at {now}")
            times += [now] * (len(lines) - before)
        now += EVERY_S
        notice.flush()
    assert sum(line["count"] for line in lines) == sum(count for _, count in steps)
    assert all(later - earlier >= EVERY_S for earlier, later in pairwise(times))
    losses = [count for _, count in steps if count]
    assert not losses or lines[0]["count"] == losses[0]
    assert all(line["see"] == "tailrace dlq ls" for line in lines)


@pytest.mark.parametrize(
    ("reason", "detail", "cause"),
    [
        ("wrong_shape", "Expected `str`, got `int` - at `$.id`", "wrong_shape: Expected `str`, got `int` - at `$.id`"),
        ("features", "ValueError: no such customer: Jane", "features"),
        ("unknown_label", "'Jane' is neither true nor false", "unknown_label"),
    ],
)
def test_a_cause_quotes_no_value(reason: str, detail: str, cause: str) -> None:
    """Details that may hold a value of the record, which may be confidential, are left out of log lines."""
    assert cause_of(Malformed(RECORD, reason, detail)) == cause
