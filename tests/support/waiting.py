"""Waiting for a condition that another thread or process makes true."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 180.0  # longest wait, so that a hang fails a test and a slow machine does not


def until(
    condition: Callable[[], object], patience: float = PATIENCE_S, check: Callable[[], object] = lambda: None
) -> None:
    """Wait until the condition holds, at most `patience` seconds.

    `check` is called in between; it raises if the condition can never hold.
    """
    deadline = time.monotonic() + patience
    while not condition():
        check()
        assert time.monotonic() < deadline, f"the condition did not hold within {patience:.0f} s"
        time.sleep(0.005)
