"""Process for tests that kill or stop it: copies one topic into another, exactly once, until SIGTERM.

python copy_child.py URL SOURCE SINK GROUP NAME [SESSION_TIMEOUT]    prints its listener's calls, one word a line
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from support.log_place import Copier

from tailrace.streams.log.base import Log
from tailrace.streams.log.sqlite.log import SqliteLog


def main(url: str, source: str, sink: str, group: str, name: str, session_timeout: str = "6") -> None:
    copier = Copier(_log(url, float(session_timeout)), source, sink, group, name, size=100)
    running = True

    def end(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, end)
    printed = 0
    while running:
        copier.step()
        for word, _ in copier.listener.calls[printed:]:
            print(word, flush=True)
        printed = len(copier.listener.calls)
    copier.close()


def _log(url: str, session_timeout: float) -> Log:
    kind, _, address = url.partition("://")
    if kind == "sqlite":
        return SqliteLog(Path(address.removeprefix("/")), session_timeout=session_timeout)
    from tailrace.streams.log.kafka.log import KafkaLog

    return KafkaLog(address)


if __name__ == "__main__":
    main(*sys.argv[1:])
