"""Commands `init` and `demo`: write a new pipeline, and show a complete one at work."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import (
    DropOption,
    IdOption,
    JsonOption,
    LabelOption,
    LabelTimeOption,
    NoConsoleOption,
    TimeOption,
    column_names,
    load_settings,
    log_to_stderr,
    print_json,
    print_message,
)

if TYPE_CHECKING:
    from tailrace.datafiles.read import Columns

FILES = ("pipeline.py", "tailrace.toml", "test_pipeline.py")
"""Files that `init` writes."""
SAMPLES = 3
"""Number of events in the generated test."""


def register(app: typer.Typer) -> None:
    """Add the commands `demo` and `init` to `app`."""
    for command in (demo, init):
        app.command()(command)


def demo(
    broker: Annotated[
        str | None,
        typer.Option("--broker", metavar="URL", help="Run on Kafka, kafka://host:port. Default: an embedded log."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Duration of the replay in seconds.")] = 50.0,
    weeks: Annotated[int, typer.Option("--weeks", min=1, max=12, help="Weeks of departures to replay.")] = 12,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the directory with the log, the keys and the output.")
    ] = False,
    no_console: NoConsoleOption = False,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample", metavar="FILE.csv", help="Write 5,000 flights to this file for `tailrace init`, and exit."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict, label and learn twelve weeks of flight departures from New York, in about a minute."""
    if sample is not None:
        _write_sample(sample, as_json)
        return
    from tailrace.app.console import maybe_served

    log_to_stderr()
    settings = load_settings(console__enabled=False if no_console else None).console
    with maybe_served(settings, elsewhere=True) as page:  # first, so that the page is available while the rest loads
        from tailrace.demo.run import main

        raise typer.Exit(main(broker, seconds, as_json, keep, page, weeks))


def _write_sample(path: Path, as_json: bool) -> None:
    from tailrace.demo.sample import write

    count = write(path)
    if as_json:
        print_json({"file": str(path), "rows": count})
        return
    print(f"Wrote {count:,} flights to {path}. Next:\n")
    print(f"  tailrace init --from {shlex.quote(str(path))} --label late --time scheduled --label-time landed")


def init(
    directory: Annotated[Path, typer.Argument(help="Directory of the new files.")] = Path("."),
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Data file to infer the pipeline from: .csv, .jsonl (either may be .gz) or .parquet.",
        ),
    ] = None,
    label: LabelOption = None,
    id: IdOption = None,
    time: TimeOption = None,
    label_time: LabelTimeOption = None,
    drop: DropOption = "",
    name: Annotated[str | None, typer.Option("--name", help="Name of the pipeline. Default: that of the file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a pipeline file, its settings and a test that passes."""
    from tailrace.datafiles.read import Columns
    from tailrace.declaration.pipeline import NAME
    from tailrace.errors import Exit, UserError

    existing = [str(directory / file) for file in FILES if (directory / file).exists()]
    if existing and not force:
        raise UserError(f"{existing[0]} exists already: choose another directory, or overwrite with --force")
    if name is not None and not NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: use lower-case letters, digits, '.', '_' and '-'", Exit.USAGE)
    if source is None:
        _write_example(directory)
    elif label is None:
        raise UserError("--from needs --label: name the column to predict", Exit.USAGE)
    else:
        columns = Columns(id, time, label, label_time)
        _write_inferred(directory, source, columns, column_names(drop), name)
    if as_json:
        print_json([str(directory / file) for file in FILES])
    else:
        _print_next_steps(directory, source)


def _write_example(directory: Path) -> None:
    """Write the files of an example pipeline."""
    from tailrace.datafiles import templates

    texts = (templates.EXAMPLE, templates.settings_file(), templates.test_file(templates.EXAMPLE_ROWS))
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in zip(FILES, texts, strict=True):
        (directory / file).write_text(text, encoding="utf-8")


def _write_inferred(directory: Path, source: Path, columns: Columns, drop: list[str], name: str | None) -> None:
    """Write the files of a pipeline that is inferred from the data file `source`."""
    from tailrace.app.pipeline_file import load_pipeline
    from tailrace.datafiles import templates
    from tailrace.datafiles.infer import infer
    from tailrace.datafiles.read import replay, rows

    inferred = infer(rows(source), columns, drop)
    source_text = str(source.resolve()) if directory.resolve() != Path.cwd() else str(source)
    name = name or templates.pipeline_name(source.name.partition(".")[0])
    directory.mkdir(parents=True, exist_ok=True)
    declaration = directory / FILES[0]
    declaration.write_text(templates.pipeline_file(name, source_text, inferred), encoding="utf-8")
    (directory / FILES[1]).write_text(templates.settings_file(source_text, inferred), encoding="utf-8")
    events = replay(rows(source), load_pipeline(str(declaration)), columns._replace(label=None))
    samples = [(moment.out.value or b"").decode() for moment in itertools.islice(events, SAMPLES)]
    (directory / FILES[2]).write_text(templates.test_file(samples), encoding="utf-8")
    features = f"{len(inferred.fields)} features" + (" and the time of day and week" if columns.time else "")
    print_message(f"{inferred.rows:,} rows: {features}; {inferred.target.kind} label, wait {inferred.wait}")
    for column, reason in inferred.left_out.items():
        print_message(f"left out: {column} ({reason})")


def _print_next_steps(directory: Path, source: Path | None) -> None:
    change_directory = f"cd {shlex.quote(str(directory))} && " if directory != Path(".") else ""
    print(f"Wrote {', '.join(FILES)}. Next:\n")
    print(f"  {change_directory}tailrace run          # all roles; leave it running")
    if source is not None:
        shown = source.resolve() if change_directory else source
        print(f"  {change_directory}tailrace send {shlex.quote(str(shown))}")
    print(f"  {change_directory}tailrace tail -f predictions")
