"""Time budget of a run or an update: kills the training process that exceeds it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_budget(process: subprocess.Popen[bytes], budget_s: float) -> Iterator[threading.Event]:
    """Kill the process if the block is not done after `budget_s` seconds. Yields the event that is set before that."""
    exceeded = threading.Event()

    def kill() -> None:
        exceeded.set()
        process.kill()

    timer = threading.Timer(budget_s, kill)
    try:
        timer.start()
        yield exceeded
    finally:
        timer.cancel()
