"""Shared parts of commands: options, opening the configured log, printing data to stdout and messages to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

if TYPE_CHECKING:
    from tailrace.app.settings import Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.streams.log.base import Log

PipelineOption: TypeAlias = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Pipeline, as path.py or module:attribute.")
]
LogOption: TypeAlias = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="Log: sqlite:///path or kafka://host:port.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NoConsoleOption: TypeAlias = Annotated[bool, typer.Option("--no-console", help="Do not serve the console page.")]

IdOption: TypeAlias = Annotated[
    str | None, typer.Option("--id", help="Column that identifies a row. Default: name of the file and row number.")
]
TimeOption: TypeAlias = Annotated[str | None, typer.Option("--time", help="Column of the event time.")]
LabelOption: TypeAlias = Annotated[str | None, typer.Option("--label", help="Column of the label, to be predicted.")]
LabelTimeOption: TypeAlias = Annotated[
    str | None, typer.Option("--label-time", help="Column of the time at which the label became known.")
]
DropOption: TypeAlias = Annotated[
    str, typer.Option("--drop", help="Columns that are not features, separated by commas.")
]


class OpenedPipeline(NamedTuple):
    """A pipeline with its settings and its open log."""

    pipeline: Pipeline
    settings: Settings
    log: Log


def load_settings(**flags: Any) -> Settings:
    """Load the settings. `flags` override other sources; their names are written section__key. Raises BadSetting."""
    from tailrace.app.settings import load_settings

    return load_settings({name.replace("__", "."): value for name, value in flags.items()}).settings


def load_pipeline_and_settings(pipeline: str | None, log: str | None, **flags: Any) -> tuple[Pipeline, Settings]:
    """Load the settings, and the pipeline that they name. Raises BadSetting, BadPipeline."""
    from tailrace.app.pipeline_file import load_pipeline

    settings = load_settings(pipeline=pipeline, log__url=log, **flags)
    return load_pipeline(settings.pipeline), settings


@contextmanager
def open_log(settings: Settings) -> Iterator[Log]:
    """Send log lines to stderr, and open the configured log until the context ends. Raises Unreachable, BadUrl."""
    from tailrace.app.factory import open_configured_log

    log_to_stderr()
    log = open_configured_log(settings)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def open_pipeline(pipeline: str | None, log: str | None) -> Iterator[OpenedPipeline]:
    """Load the pipeline and its settings, and open the log. See `load_pipeline_and_settings` and `open_log`."""
    declaration, settings = load_pipeline_and_settings(pipeline, log)
    with open_log(settings) as opened_log:
        yield OpenedPipeline(declaration, settings, opened_log)


def log_to_stderr() -> None:
    """Send log lines to stderr: as text to a terminal, else as JSON. Stdout is for data only.

    Log lines contain names, numbers and positions, but never the contents of a record.
    """
    import structlog
    from structlog.processors import JSONRenderer, format_exc_info

    is_terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.dev.ConsoleRenderer()] if is_terminal else [format_exc_info, JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@contextmanager
def progress_bar(task: str = "reading") -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on stderr if it is a terminal.

    Yields report(task, done, total), which updates the bar; a total of 0 means that it is unknown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.disable = not sys.stderr.isatty()
    with bar:
        line = bar.add_task(task, total=None)

        def report(task: str, done: int, total: int) -> None:
            bar.update(line, description=task, completed=done, total=total or None)

        yield report


def column_names(text: str) -> list[str]:
    """Split the value of an option at its commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def print_message(text: str) -> None:
    """Print a message for the user to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a value to stdout as one line of JSON."""
    print(json_text(value), flush=True)


def json_text(value: Any) -> str:
    """Encode a value as JSON; values of other types as their str()."""
    return json.dumps(value, ensure_ascii=False, default=str)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print (heading, text) pairs, one per line. A pair with an empty heading continues the previous text."""
    for heading, text in facts:
        print(f"{heading:11} {text}".rstrip())


def print_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows that have equal keys, as a JSON array or as aligned columns."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        return
    lines = [[str(key).upper() for key in rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
