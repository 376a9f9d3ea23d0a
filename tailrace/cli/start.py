"""`init` and `demo`: the first things that a newcomer runs."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import JsonOption, NoConsole, emit, load_settings, log_to_stderr, note

if TYPE_CHECKING:
    from tailrace.datafiles.read import Columns

FILES = ("pipeline.py", "tailrace.toml", "test_pipeline.py")
SAMPLES = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (demo, init):
        app.command()(command)


def demo(
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="URL", help="Run it on Kafka, kafka://host:port; else embedded.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long the replay shall take.")] = 50.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the directory with the log, the keys and all output.")
    ] = False,
    no_console: NoConsole = False,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample", metavar="FILE.csv", help="Write 5,000 of the flights to this file and exit, to try `init`."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Watch twelve weeks of New York departures being predicted, labelled and learned from, in about a minute."""
    if sample is not None:
        _write_sample(sample, as_json)
        return
    from tailrace.app.console import maybe_served

    log_to_stderr()
    settings = load_settings(console__enabled=False if no_console else None).console
    with maybe_served(settings, elsewhere=True) as page:  # first: it is there while all the rest is loaded
        from tailrace.demo.run import main

        raise typer.Exit(main(broker, seconds, as_json, keep, page))


def _write_sample(path: Path, as_json: bool) -> None:
    from tailrace.demo.sample import write

    count = write(path)
    if as_json:
        emit({"file": str(path), "rows": count})
        return
    print(f"Wrote {count:,} flights to {path}. Next:\n")
    print(f"  tailrace init --from {shlex.quote(str(path))} --label late --time scheduled --label-time landed")


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write the files.")] = Path("."),
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Infer it from a .csv, .jsonl (.gz too) or .parquet file."),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="The column to predict.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The column that identifies a row; else its number.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="The column that tells when an event happened.")] = None,
    label_time: Annotated[
        str | None, typer.Option("--label-time", help="The column that tells when the label became known.")
    ] = None,
    drop: Annotated[str, typer.Option("--drop", help="Columns that are no features, separated by commas.")] = "",
    name: Annotated[str | None, typer.Option("--name", help="The pipeline's name; else the file's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a pipeline file, its settings and a passing test."""
    from tailrace.datafiles.read import Columns
    from tailrace.declaration.pipeline import NAME
    from tailrace.errors import Exit, UserError

    taken = [str(directory / file) for file in FILES if (directory / file).exists()]
    if taken and not force:
        raise UserError(f"{taken[0]} is there already: choose another directory, or overwrite with --force")
    if name is not None and not NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: use lower-case letters, digits, '.', '_' and '-'", Exit.USAGE)
    if source is None:
        _write_example(directory)
    elif label is None:
        raise UserError("--from needs --label: name the column to predict", Exit.USAGE)
    else:
        columns = Columns(id, time, label, label_time)
        dropped = [column.strip() for column in drop.split(",") if column.strip()]
        _write_inferred(directory, source, columns, dropped, name)
    if as_json:
        emit([str(directory / file) for file in FILES])
    else:
        _next_steps(directory, source)


def _write_example(directory: Path) -> None:
    from tailrace.datafiles import templates

    texts = (templates.EXAMPLE, templates.settings_file(), templates.test_file(templates.EXAMPLE_ROWS))
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in zip(FILES, texts, strict=True):
        (directory / file).write_text(text, encoding="utf-8")


def _write_inferred(directory: Path, source: Path, columns: Columns, drop: list[str], name: str | None) -> None:
    from tailrace.app.pipeline_file import load_pipeline
    from tailrace.datafiles import templates
    from tailrace.datafiles.infer import infer
    from tailrace.datafiles.read import replay, rows

    found = infer(rows(source), columns, drop)
    shown = str(source.resolve()) if directory.resolve() != Path.cwd() else str(source)
    name = name or templates.pipeline_name(source.name.partition(".")[0])
    directory.mkdir(parents=True, exist_ok=True)
    declaration = directory / FILES[0]
    declaration.write_text(templates.pipeline_file(name, shown, found), encoding="utf-8")
    (directory / FILES[1]).write_text(templates.settings_file(shown, found), encoding="utf-8")
    events = replay(rows(source), load_pipeline(str(declaration)), columns._replace(label=None))
    samples = [(moment.out.value or b"").decode() for moment in itertools.islice(events, SAMPLES)]
    (directory / FILES[2]).write_text(templates.test_file(samples), encoding="utf-8")
    features = f"{len(found.fields)} features" + (" and the time of day and week" if columns.time else "")
    note(f"{found.rows:,} rows: {features}; {found.target.kind} label, wait {found.wait}")
    for column, why in found.left_out.items():
        note(f"left out: {column} ({why})")


def _next_steps(directory: Path, source: Path | None) -> None:
    where = f"cd {shlex.quote(str(directory))} && " if directory != Path(".") else ""
    print(f"Wrote {', '.join(FILES)}. Next:\n")
    print(f"  {where}tailrace run          # all roles; leave it running")
    if source is not None:
        shown = source.resolve() if where else source
        print(f"  {where}tailrace send {shlex.quote(str(shown))}")
    print(f"  {where}tailrace tail -f predictions")
