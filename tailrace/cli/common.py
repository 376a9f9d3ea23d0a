"""What the commands share: options, opening what the settings name, and printing: data to stdout, words to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from tailrace.app.settings import Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.streams.log.base import Log

PipelineOption: TypeAlias = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="The pipeline, as path.py or module:attribute.")
]
LogOption: TypeAlias = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="The log: sqlite:///path or kafka://host:port.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NoConsole: TypeAlias = Annotated[bool, typer.Option("--no-console", help="Serve no page about the pipeline.")]


def load_settings(**flags: Any) -> Settings:
    """The settings with these flags on top; names are written section__key. Raises BadSetting."""
    from tailrace.app.settings import load_settings

    return load_settings({name.replace("__", "."): value for name, value in flags.items()}).settings


def load(pipeline: str | None, log: str | None, **flags: Any) -> tuple[Pipeline, Settings]:
    """The pipeline and the settings. Raises BadSetting, BadPipeline."""
    from tailrace.app.pipeline_file import load_pipeline

    settings = load_settings(pipeline=pipeline, log__url=log, **flags)
    return load_pipeline(settings.pipeline), settings


@contextmanager
def opened(settings: Settings) -> Iterator[Log]:
    """The configured log, closed at the end."""
    from tailrace.app.factory import open_configured_log

    log_to_stderr()
    log = open_configured_log(settings)
    try:
        yield log
    finally:
        log.close()


def log_to_stderr() -> None:
    """Stdout is for data: every log line goes to stderr, as text on a terminal and as JSON elsewhere.

    A line says what happened and to what, by names, numbers and positions; never what a record held.
    """
    import structlog
    from structlog.processors import JSONRenderer, format_exc_info

    readable = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.dev.ConsoleRenderer()] if readable else [format_exc_info, JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@contextmanager
def progress(what: str = "reading") -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error where that is a terminal; told what is being done, how much of it, and of how much (0:
    nobody knows)."""
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
        task = bar.add_task(what, total=None)

        def tell(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of or None)

        yield tell


def note(text: str) -> None:
    """A word to the user, on stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """One JSON value on stdout, in one line."""
    print(as_text(value), flush=True)


def as_text(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def sentences(told: Iterable[tuple[str, str]]) -> None:
    """What is spoken of, and what is said of it, a line each; without a subject a line goes on with the one before."""
    for subject, said in told:
        print(f"{subject:11} {said}".rstrip())


def table(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Rows with the same keys: a JSON array, or aligned columns."""
    if as_json:
        emit(rows)
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
