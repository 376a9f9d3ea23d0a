"""Waiting for what another thread or process will do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 180.0  # until a wait is given up: what hangs, not what is slow, shall fail


def until(
    condition: Callable[[], object], patience: float = PATIENCE_S, check: Callable[[], object] = lambda: None
) -> None:
    """Wait until the condition holds, for so many seconds at most. `check`, called in between, raises what makes
    waiting pointless."""
    deadline = time.monotonic() + patience
    while not condition():
        check()
        assert time.monotonic() < deadline, f"it did not come true within {patience:.0f} s"
        time.sleep(0.005)
