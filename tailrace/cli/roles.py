"""`run`, `worker`, `joiner`, `retrainer`: the roles of a pipeline, each until told to stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Annotated, TypeAlias

import typer

from tailrace.cli.common import LogOption, NoConsole, PipelineOption, load, log_to_stderr

Reference: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="[PIPELINE]", help="The pipeline, as path.py or module:attribute.")
]
Instance: TypeAlias = Annotated[
    str | None, typer.Option("--instance", help="The name of this one among several: stable, and no other's.")
]

Tethered: TypeAlias = Annotated[
    bool, typer.Option("--until-eof", help="Stop when standard input ends, as it does when the parent process dies.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (run, worker, joiner, retrainer):
        app.command()(command)


def run(
    reference: Reference = None, pipeline: PipelineOption = None, log: LogOption = None, no_console: NoConsole = False
) -> None:
    """Run all roles of a pipeline, each as a process of its own, and the console."""
    from tailrace.app.roles import run_all

    declared, settings = load(reference or pipeline, log, console__enabled=False if no_console else None)
    log_to_stderr()
    run_all(declared, settings, stop_on_signal())


def worker(
    reference: Reference = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    instance: Instance = None,
    delivery: Annotated[
        str | None, typer.Option("--delivery", help="exactly_once (the default) or at_least_once.")
    ] = None,
    until_eof: Tethered = False,
) -> None:
    """Score events: events in, predictions out."""
    from tailrace.app.roles import run_worker

    declared, settings = load(reference or pipeline, log, worker__instance=instance, worker__delivery=delivery)
    log_to_stderr()
    run_worker(declared, settings, stop_on_signal(until_eof))


def joiner(
    reference: Reference = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    instance: Instance = None,
    until_eof: Tethered = False,
) -> None:
    """Join predictions with their labels: examples out."""
    from tailrace.app.roles import run_joiner

    declared, settings = load(reference or pipeline, log, joiner__instance=instance)
    log_to_stderr()
    run_joiner(declared, settings, stop_on_signal(until_eof))


def retrainer(
    reference: Reference = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    nproc: Annotated[
        int | None, typer.Option("--nproc", min=1, help="How many processes train together (1), one a GPU.")
    ] = None,
    until_eof: Tethered = False,
) -> None:
    """Learn from examples: releases out. Under torchrun its processes train together, on one machine or more."""
    from tailrace.app.roles import run_retrainer
    from tailrace.retrain.worker.torchrun import given_rank

    declared, settings = load(reference or pipeline, log, retrainer__nproc=nproc)
    log_to_stderr()
    if given_rank():
        from tailrace.retrain.worker.rank import take_part

        take_part()
    run_retrainer(declared, settings, stop_on_signal(until_eof))


def stop_on_signal(until_eof: bool = False) -> threading.Event:
    """An event that SIGTERM and SIGINT set, so that a role drains; a second SIGINT interrupts at once.

    With `until_eof` the end of standard input sets it too.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if until_eof:
        threading.Thread(target=_await_eof, args=(stop,), name="tether", daemon=True).start()
    return stop


def _await_eof(stop: threading.Event) -> None:
    while os.read(0, 1024):  # below sys.stdin, whose lock a daemon thread would hold when the process ends
        pass
    stop.set()
