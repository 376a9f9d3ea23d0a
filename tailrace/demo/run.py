"""Run of `tailrace demo`: roles as real processes, a producer, a watcher, a live view and a final summary."""

from __future__ import annotations

import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from tailrace.app.console import following
from tailrace.app.factory import create_topics, open_configured_log, signing_key, trusted_keys
from tailrace.app.settings import KeysSettings, LogSettings, MonitoringSettings, Settings, as_environment, load_settings
from tailrace.app.supervisor import Roles
from tailrace.datafiles.read import rows
from tailrace.declaration.pipeline import Pipeline
from tailrace.demo.flights import DATA, declare
from tailrace.demo.screen import Screen
from tailrace.demo.sender import WEEKS, Sender
from tailrace.demo.watch import FROZEN_AFTER_S, Watcher
from tailrace.errors import Exit
from tailrace.monitoring.telemetry.compare import comparison

if TYPE_CHECKING:
    from tailrace.monitoring.console.server import Console

_DECLARATION = "from tailrace.demo.flights import declare\n\npipeline = declare({name!r})\n"
_SETTLE_S = 90.0  # longest wait for the last predictions and examples after the last event was sent
_FRAME_S = 0.25  # seconds between two updates of the screen


class Stage(NamedTuple):
    """Set-up of a demo: its temporary directory, pipeline, settings and the reference of the pipeline file."""

    directory: Path
    pipeline: Pipeline
    settings: Settings
    reference: str


def main(
    broker: str | None = None,
    length: float = 50.0,
    as_json: bool = False,
    keep: bool = False,
    page: Console | None = None,
    weeks: int = WEEKS,
) -> int:
    """Run the demo in about `length` seconds and print its summary.

    Returns exit code 1 if predictions are missing or duplicated or nothing was released, else 0.
    `broker`: kafka://host:port instead of an embedded log. `as_json`: also print the summary as JSON on standard
    output. `keep`: keep the directory with log, keys and process logs. `page`: a console server that already runs.
    `weeks`: weeks of departures to replay, 1 to 12.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # an exception, so that processes are stopped and the directory is removed
    directory = Path(tempfile.mkdtemp(prefix="tailrace-demo-"))
    try:
        summary = _perform(_stage(directory, broker), length, Screen(sys.stderr), page, weeks)
        if as_json:
            print(msgspec.json.encode(summary).decode(), flush=True)
        return Exit.FAILED if summary["missing"] or summary["duplicates"] or not summary["releases"] else Exit.OK
    finally:
        if keep:
            print(f"log, keys and process logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stage(directory: Path, broker: str | None) -> Stage:
    name = f"flights-demo-{secrets.token_hex(3)}" if broker else "flights"
    settings = Settings(
        pipeline=str(directory / "pipeline.py"),
        log=LogSettings(url=broker or f"sqlite:///{directory / 'log.db'}"),
        keys=KeysSettings(directory=directory / "keys"),
        monitoring=MonitoringSettings(port=0),
        console=load_settings().settings.console,  # the user's settings of the console; all others are the demo's
    )
    Path(settings.pipeline).write_text(_DECLARATION.format(name=name), encoding="utf-8")
    return Stage(directory, declare(name), settings, settings.pipeline)


def _perform(stage: Stage, length: float, screen: Screen, page: Console | None, weeks: int) -> dict[str, Any]:
    started = time.monotonic()
    with ExitStack() as stack:
        log = open_configured_log(stage.settings)
        stack.callback(log.close)
        create_topics(log, stage.pipeline, stage.settings)
        signing_key(stage.settings)  # created before the roles start, because the worker only reads keys
        watcher = Watcher(log, stage.pipeline, trusted_keys(stage.settings), stage.directory / "worker.log")
        roles = stack.enter_context(Roles(stage.reference, as_environment(stage.settings), logs=stage.directory))
        watcher.start()
        stack.callback(watcher.close)
        if page is not None:
            stack.enter_context(
                following(page, log, stage.pipeline, stage.settings, roles.metrics_urls, freeze_after=FROZEN_AFTER_S)
            )
        sender = Sender(
            log,
            stage.pipeline,
            _events() * weeks / WEEKS / length,
            predicted=lambda: watcher.predictions,
            learned=lambda: watcher.learned,
            weeks=weeks,
        )
        sender.start()
        stack.callback(sender.close)
        screen.show(stage.settings.log.url, weeks)
        run = DemoRun(roles, sender, watcher, screen)
        run.wait(lambda: sender.done, limit=60 * length)
        run.wait(lambda: _settled(sender, watcher), limit=_SETTLE_S)
        compared = comparison([*roles.metrics_urls().values()])
    summary = {**_summary(sender, watcher, time.monotonic() - started), "comparison": compared}
    screen.verdict(summary)
    return summary


def _events() -> int:
    return sum(1 for _ in rows(DATA))


def _settled(sender: Sender, watcher: Watcher) -> bool:
    return watcher.predictions >= sender.events and watcher.examples >= sender.labels


class DemoRun(NamedTuple):
    """A running demo."""

    roles: Roles
    sender: Sender
    watcher: Watcher
    screen: Screen

    def wait(self, done: Callable[[], bool], limit: float) -> None:
        """Update the screen until `done` returns True, at most `limit` seconds. Raises the failure of any part."""
        deadline = time.monotonic() + limit
        pause = threading.Event()
        while not done() and time.monotonic() < deadline:
            self.roles.check()
            for part in (self.sender, self.watcher):
                if part.failure is not None:
                    raise part.failure
            self.screen.update(self.sender, self.watcher)
            pause.wait(_FRAME_S)


def _summary(sender: Sender, watcher: Watcher, seconds: float) -> dict[str, Any]:
    pauses = [swap.pause_ms for swap in watcher.swaps] or [0.0]
    return {
        "events": sender.events,
        "predictions": watcher.predictions,
        "duplicates": watcher.duplicates,
        "missing": sender.events - (watcher.predictions - watcher.duplicates),
        "dead_letters": watcher.dead_letters,
        "labels": sender.labels,
        "examples": watcher.examples,
        "unlabelled": sender.events - sender.labels,
        "releases": watcher.releases,
        "updates": watcher.updates,
        "swaps": len(watcher.swaps),
        "swap_pause_ms": {
            "p50": float(np.percentile(pauses, 50)),
            "p99": float(np.percentile(pauses, 99)),
            "max": max(pauses),
        },
        "retrainings": [
            {"reason": run.reason, "seconds": run.seconds, "examples": run.examples, "gate": _gate(run)}
            for run in watcher.runs
        ],
        "live": watcher.quality("live"),
        "frozen": watcher.quality("frozen"),
        "events_per_second": sender.events / sender.seconds if sender.seconds else 0.0,
        "seconds": seconds,
    }


def _gate(run: Any) -> dict[str, Any]:
    if run.gate is None:
        return {"passed": False, "reason": run.detail}
    return {key: getattr(run.gate, key) for key in ("passed", "reason", "candidate", "champion", "examples")}
