"""Command `console`: a live page about a running pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    load_pipeline_and_settings,
    load_settings,
    log_to_stderr,
    open_log,
    print_json,
)


def register(app: typer.Typer) -> None:
    """Add the command `console` to `app`."""
    app.command()(console)


def console(
    pipeline: PipelineOption = None,
    log: LogOption = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Port of the page (9470); 0: any free port.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a live page about a running pipeline, on this machine only, until interrupted."""
    from tailrace.app.console import announce, following, served
    from tailrace.app.roles import metrics_urls
    from tailrace.cli.roles import stop_on_signal

    log_to_stderr()
    flags = {"pipeline": pipeline, "log__url": log, "console__port": port}
    stop = stop_on_signal()
    with served(load_settings(**flags).console) as (page, url):
        if as_json:
            print_json({"url": url})
        else:
            announce(url, page)
        declaration, settings = load_pipeline_and_settings(pipeline, log, console__port=port)
        with (
            open_log(settings) as opened_log,
            following(page, opened_log, declaration, settings, lambda: metrics_urls(settings), freeze_after=0.0),
        ):
            stop.wait()
