"""`compare`: training and inference of a running pipeline, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.common import JsonOption, emit, load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="A role's /metrics, once for each role; else those that the settings name."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what training and inference of a running pipeline use, take and cost: measured by its roles."""
    from tailrace.monitoring.telemetry.compare import comparison

    found = comparison(url or _configured())
    if as_json:
        emit(found)
        return
    from rich.console import Console
    from rich.table import Table

    from tailrace.monitoring.telemetry.compare_text import rows, sentences

    table = Table("", "inference", "training")
    for row in rows(found):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    for sentence in sentences(found):
        console.print(sentence, soft_wrap=True)


def _configured() -> list[str]:
    from tailrace.app.roles import metrics_urls
    from tailrace.errors import BadSetting

    urls = list(metrics_urls(load_settings()).values())
    if not urls:
        raise BadSetting(
            "the settings say nothing of where the roles are (monitoring.port = 0, or monitoring.enabled = false): "
            "give --url for each, as they log it"
        )
    return urls
