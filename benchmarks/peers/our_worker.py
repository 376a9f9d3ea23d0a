"""Tailrace contender: the worker in a child process, as `tailrace worker` runs it."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.harness import when_stopped
from benchmarks.peers.job import given
from tailrace.app.runners import build_worker
from tailrace.app.settings import Settings
from tailrace.monitoring.telemetry.metrics import Metrics
from tailrace.streams.log.url import open_log
from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector


def main() -> None:
    """Run the worker until the parent stops it."""
    job, stop = given(), when_stopped()
    settings = Settings.model_validate(
        {
            "log": {"url": f"kafka://{job.bootstrap}"},
            "keys": {"directory": job.keys},
            "worker": {"delivery": job.delivery, "instance": job.predictions},
        }
    )
    declared = job.declared
    declared.name = job.predictions  # a new group for each run, which starts at the first event
    with ExitStack() as stack:
        log = open_log(settings.log.url)
        stack.callback(log.close)
        runner = build_worker(log, declared, settings, stack, Metrics())
        freeze_garbage_collector()
        runner.run(stop)


if __name__ == "__main__":
    main()
