"""Timing of reads and commits, without a log and without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.streams.log.base import Delivery
from tailrace.streams.runtime.commit_policy import BACKLOG_FACTOR, GATHER_S, IDLE_S, LEAST_WAIT_S, CommitPolicy

intervals = st.floats(0.0, 5.0)
batches = st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(0, 100)), min_size=1, max_size=30)


@given(st.sampled_from(Delivery), intervals, batches)
def test_no_work_waits_longer_than_the_backlog_interval(
    delivery: Delivery, interval: float, arrivals: list[tuple[float, int]]
) -> None:
    """Whatever the batches, a commit is due once the longest interval has passed since the last one, never before the
    shortest; pauses and waits stay within their bounds."""
    policy, now = CommitPolicy(delivery, interval), 100.0
    policy.committed(now, started=False)
    last = now
    for elapsed, records in arrivals:
        now += elapsed
        policy.took(records, 100, now)
        assert 0 <= policy.pause(now) <= GATHER_S
        assert LEAST_WAIT_S <= policy.wait(now) <= IDLE_S
        due = policy.commit_due(now)
        if now - last >= BACKLOG_FACTOR * interval + 1e-6:
            assert due
        if now - last < interval - 1e-6:
            assert not due
        if due:
            policy.committed(now, started=True)
            last = now
            assert not policy.commit_due(now + 100)


def test_a_backlog_is_read_at_once_and_committed_seldom() -> None:
    """Full batches are read without a pause and share a transaction of three intervals; a small batch restores both."""
    policy = CommitPolicy(Delivery.EXACTLY_ONCE, 0.03)
    policy.committed(10.0, started=True)
    policy.took(100, 100, 10.0)
    assert policy.pause(10.0) == 0
    assert not policy.commit_due(10.08)
    assert policy.commit_due(10.091)
    policy.took(5, 100, 10.08)
    assert policy.pause(10.08) == pytest.approx(0.003)
    assert policy.commit_due(10.08)


def test_at_least_once_reads_without_pauses() -> None:
    """Records that are visible before their commit are not gathered."""
    policy = CommitPolicy(Delivery.AT_LEAST_ONCE, 1.0)
    policy.took(1, 100, 10.0)
    assert policy.pause(10.0) == 0


def test_a_commit_confirms_the_one_before() -> None:
    """A commit that starts waits for the one before, so that one has succeeded; a commit of nothing tells nothing."""
    policy = CommitPolicy(Delivery.EXACTLY_ONCE, 1.0)
    assert policy.idle
    policy.took(1, 100, 0.0)
    assert not policy.idle
    assert not policy.committed(1.0, started=True)
    assert not policy.idle
    assert not policy.committed(2.0, started=False)
    assert policy.committed(3.0, started=True)
    policy.settled()
    assert policy.idle


def test_going_back_leaves_no_work() -> None:
    """After the return to the committed positions nothing is uncommitted, unsettled or void."""
    policy = CommitPolicy(Delivery.EXACTLY_ONCE, 1.0)
    policy.took(1, 100, 0.0)
    policy.committed(0.0, started=True)
    policy.took(1, 100, 0.0)
    policy.void = True
    policy.went_back()
    assert policy.idle
    assert not policy.void
    assert not policy.commit_due(100.0)
    assert policy.wait(100.0) == IDLE_S
