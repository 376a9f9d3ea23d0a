"""`console`: one live page about a running pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.common import JsonOption, LogOption, PipelineOption, emit, load, load_settings, log_to_stderr, opened


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(console)


def console(
    pipeline: PipelineOption = None,
    log: LogOption = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Where to serve it (9470); 0: any free port.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve one live page about a running pipeline, on this machine only, until told to stop."""
    from tailrace.app.console import announce, following, served
    from tailrace.app.roles import metrics_urls
    from tailrace.cli.roles import stop_on_signal

    log_to_stderr()
    flags = {"pipeline": pipeline, "log__url": log, "console__port": port}
    stop = stop_on_signal()
    with served(load_settings(**flags).console) as (page, url):
        if as_json:
            emit({"url": url})
        else:
            announce(url, page)
        declared, settings = load(pipeline, log, console__port=port)
        with (
            opened(settings) as opened_log,
            following(page, opened_log, declared, settings, lambda: metrics_urls(settings), freeze_after=0.0),
        ):
            stop.wait()
