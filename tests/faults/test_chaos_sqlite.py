"""Chaos on the embedded log: workers and joiners killed while events and labels stream in."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from support.chaos import RATE, Chaos, Complete, Names, Role, Sender, audit, committed, records

from tailrace.streams.log.sqlite.log import SqliteLog

CHILD = Path(__file__).parents[1] / "support/chaos_child.py"
SEED = 20_240_501
SECONDS = 12.0


@pytest.mark.long
def test_kill_9_of_worker_and_joiner_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Each role is killed five times while events come, with labels early, late, twice or never: each event has one
    prediction, and each labelled event one example, with the right label."""
    path, names = tmp_path / "log.db", Names.of("chaos")
    log = SqliteLog(path)
    names.create(log, partitions=4)
    read = {"worker": names.events, "joiner": names.predictions}
    roles = [
        Role(
            name,
            [sys.executable, str(CHILD), f"sqlite:///{path}", "chaos", name],
            lambda name=name, topic=topic: committed(log, f"chaos.{name}", topic),  # type: ignore[misc]
        )
        for name, topic in read.items()
    ]
    sender = Sender(log, names, SEED)
    with Chaos(roles, tmp_path, check=sender.check) as chaos, sender:
        chaos.strike(times=5, seed=SEED)
        sender.finish(SECONDS)
        chaos.await_(Complete(log, "chaos", sender.sent))
    audit(partial(records, log), names, sender.sent)
    assert len(sender.sent.events) >= RATE * SECONDS
    log.close()
