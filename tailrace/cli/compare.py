"""Command `compare`: training and inference of a running pipeline, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.common import JsonOption, load_settings, print_json


def register(app: typer.Typer) -> None:
    """Add the command `compare` to `app`."""
    app.command()(compare)


def compare(
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url", help="URL of the /metrics of a role; repeat for each role. Default: those of the settings."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the measured resource usage, time and cost of training and inference of a running pipeline."""
    from tailrace.monitoring.telemetry.compare import comparison

    measured = comparison(url or _configured_urls())
    if as_json:
        print_json(measured)
        return
    from rich.console import Console
    from rich.table import Table

    from tailrace.monitoring.telemetry.compare_text import rows, sentences

    table = Table("", "inference", "training")
    for row in rows(measured):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    for sentence in sentences(measured):
        console.print(sentence, soft_wrap=True)


def _configured_urls() -> list[str]:
    """Return the metrics URLs of the roles on this machine. Raise BadSetting if the settings do not fix them."""
    from tailrace.app.roles import metrics_urls
    from tailrace.errors import BadSetting

    urls = list(metrics_urls(load_settings()).values())
    if not urls:
        raise BadSetting(
            "the settings do not fix the metrics URLs of the roles (monitoring.port = 0, or monitoring.enabled = "
            "false): give --url for each role, as the role logs it"
        )
    return urls
