"""Commands `run`, `worker`, `joiner` and `retrainer`: the roles of a pipeline, each until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tailrace.cli.common import LogOption, NoConsoleOption, PipelineOption, load_pipeline_and_settings, log_to_stderr

if TYPE_CHECKING:
    from tailrace.app.settings import Settings
    from tailrace.declaration.pipeline import Pipeline

PipelineArgument: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="[PIPELINE]", help="Pipeline, as path.py or module:attribute.")
]
InstanceOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--instance", help="Instance name: stable across restarts and unique among running instances."),
]
UntilEofOption: TypeAlias = Annotated[
    bool, typer.Option("--until-eof", help="Stop at the end of standard input, which comes when the parent dies.")
]
ProbeOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--probe", hidden=True, help="Process the record at topic/partition/offset, write nothing, and end."),
]


def register(app: typer.Typer) -> None:
    """Add the commands `run`, `worker`, `joiner` and `retrainer` to `app`."""
    for command in (run, worker, joiner, retrainer):
        app.command()(command)


def run(
    reference: PipelineArgument = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    no_console: NoConsoleOption = False,
) -> None:
    """Run all roles of a pipeline, each as a process of its own, and the console."""
    from tailrace.app.roles import run_all

    declaration, settings = _load(reference or pipeline, log, console__enabled=False if no_console else None)
    run_all(declaration, settings, stop_on_signal())


def worker(
    reference: PipelineArgument = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    instance: InstanceOption = None,
    delivery: Annotated[
        str | None, typer.Option("--delivery", help="exactly_once (the default) or at_least_once.")
    ] = None,
    until_eof: UntilEofOption = False,
    probe: ProbeOption = None,
) -> None:
    """Score events: read events, write predictions."""
    from tailrace.app.probe import RecordProbe, probe_worker
    from tailrace.app.roles import run_worker

    declaration, settings = _load(reference or pipeline, log, worker__instance=instance, worker__delivery=delivery)
    if probe is not None:
        probe_worker(declaration, settings, probe)
    else:
        run_worker(declaration, settings, stop_on_signal(until_eof), RecordProbe(sys.argv[1:]))


def joiner(
    reference: PipelineArgument = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    instance: InstanceOption = None,
    until_eof: UntilEofOption = False,
    probe: ProbeOption = None,
) -> None:
    """Join predictions with labels: read both, write examples."""
    from tailrace.app.probe import RecordProbe, probe_joiner
    from tailrace.app.roles import run_joiner

    declaration, settings = _load(reference or pipeline, log, joiner__instance=instance)
    if probe is not None:
        probe_joiner(declaration, settings, probe)
    else:
        run_joiner(declaration, settings, stop_on_signal(until_eof), RecordProbe(sys.argv[1:]))


def retrainer(
    reference: PipelineArgument = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    nproc: Annotated[
        int | None,
        typer.Option("--nproc", min=1, help="Number of processes that train a model in parallel (1), one per GPU."),
    ] = None,
    until_eof: UntilEofOption = False,
) -> None:
    """Train on examples and publish releases. Under torchrun all ranks train a model in parallel."""
    from tailrace.app.roles import run_retrainer
    from tailrace.retrain.worker.torchrun import given_rank

    declaration, settings = _load(reference or pipeline, log, retrainer__nproc=nproc)
    if given_rank():
        from tailrace.retrain.worker.rank import take_part

        take_part()
    run_retrainer(declaration, settings, stop_on_signal(until_eof))


def _load(pipeline: str | None, log: str | None, **flags: Any) -> tuple[Pipeline, Settings]:
    """Load the pipeline and the settings of a role, and send its log lines to stderr."""
    loaded = load_pipeline_and_settings(pipeline, log, **flags)
    log_to_stderr()
    return loaded


def stop_on_signal(until_eof: bool = False) -> threading.Event:
    """Return an event that SIGTERM and SIGINT set, so that a role drains. A second SIGINT interrupts at once.

    With `until_eof`, the end of standard input sets it too.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if until_eof:
        threading.Thread(target=_stop_at_eof, args=(stop,), name="stdin-eof", daemon=True).start()
    return stop


def _stop_at_eof(stop: threading.Event) -> None:
    # os.read, because a daemon thread in sys.stdin.read would hold its lock while the interpreter shuts down.
    while os.read(0, 1024):
        pass
    stop.set()
