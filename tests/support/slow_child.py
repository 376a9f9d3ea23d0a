"""Process for a test that kills it: copies `source` to `sink`, exactly once; in mode "wait" it processes nothing.

python slow_child.py PATH wait|copy     prints "processing" when the first records have been read
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from support.waiting import PATIENCE_S

from tailrace.streams.log.base import Batch
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless


def main(path: str, mode: str) -> None:
    log = SqliteLog(Path(path), session_timeout=0.5)
    stop = threading.Event()

    def copy(batch: Batch) -> list[Out]:
        print("processing", flush=True)
        if mode == "wait":
            time.sleep(PATIENCE_S)
        return [Out("sink", record.key, record.value) for record in batch.records]

    def deadly(record: Record) -> bool:
        """Process the record in another process, as `tailrace.app.probe` does; it ends well."""
        if mode == "wait":  # the kill may come here too
            print("processing", flush=True)
        return subprocess.run([sys.executable, "-c", ""], check=False).returncode != 0

    config = RunnerConfig(("source",), "copiers", "copier", "0")
    runner = Runner(log, Stateless(copy), config, deadly=deadly)
    if mode == "copy":
        threading.Thread(target=_stop_when_idle, args=(log, runner, stop), daemon=True).start()
    runner.run(stop)
    log.close()


def _stop_when_idle(log: SqliteLog, runner: Runner, stop: threading.Event) -> None:
    while not (runner.idle and sum(log.end_positions("sink").values()) >= 50):
        time.sleep(0.01)
    stop.set()


if __name__ == "__main__":
    main(*sys.argv[1:])
