"""`backtest`: what would have been predicted, and which policy would have won."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import JsonOption, emit, load_settings, log_to_stderr, note, progress

if TYPE_CHECKING:
    from tailrace.app.settings import Settings
    from tailrace.backtest.request import BacktestOptions, PipelineSource


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backtest)


def backtest(
    reference: Annotated[
        str | None,
        typer.Argument(metavar="[PIPELINE]", help="path.py or module:attribute; without it, inferred from the data."),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", metavar="FILE|URL", help="A .csv, .jsonl or .parquet file, or the URL of a log.")
    ] = "",
    label: Annotated[str | None, typer.Option("--label", help="The label column.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The id column; without any, the row number.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="The event-time column.")] = None,
    label_time: Annotated[str | None, typer.Option("--label-time", help="The column of when a label came.")] = None,
    drop: Annotated[str, typer.Option("--drop", help="Columns that are no features, separated by commas.")] = "",
    label_delay: Annotated[
        str | None,
        typer.Option("--label-delay", metavar="N|DURATION|natural", help="Events, or time such as 12h, after its own."),
    ] = None,
    policy: Annotated[
        list[Path] | None, typer.Option("--policy", metavar="FILE.toml", help="Another policy; may be repeated.")
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Add reference learners, mostly River's.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write a page with curves and the comparison.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of fresh weights and replay.")] = 0,
    score_from: Annotated[
        int, typer.Option("--score-from", min=0, metavar="N", help="Leave the first N events out of the figures.")
    ] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N events.")] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=1, metavar="ROWS/S", help="How fast training is on the simulated clock.")
    ] = 50_000.0,
    as_json: JsonOption = False,
) -> None:
    """Replay history: what would have been predicted, which policy would have won, and what it would have cost."""
    from tailrace.backtest.request import BacktestOptions, inferred
    from tailrace.backtest.result import builtin
    from tailrace.backtest.run import backtest
    from tailrace.datafiles.read import Columns
    from tailrace.errors import Exit, UserError

    if not data:
        raise UserError("--data is missing: name a file, or a log such as sqlite:///.tailrace/log.db", Exit.USAGE)
    log_to_stderr()
    dropped = [column.strip() for column in drop.split(",") if column.strip()]
    settings = load_settings(pipeline=reference)
    options = BacktestOptions(
        data=data,
        columns=Columns(id, time, label, label_time),
        drop=dropped,
        delay=label_delay,
        policies=policy or [],
        baselines=baselines,
        seed=seed,
        score_from=score_from,
        limit=limit,
        rate=rate,
    )
    if reference is None and label is not None:
        source = inferred(options)
        note((source.text or "").rstrip() + "\n")
    else:
        source, options = _declared(settings, options)
    with progress() as tell:
        result = backtest(source, options, settings, tell)
    if report is not None:
        from tailrace.backtest.report.page import write

        note(f"report: {write(result, report)}")
    if as_json:
        emit(builtin(result))
    else:
        from tailrace.backtest.report.terminal import show

        show(result, sys.stdout)


def _declared(settings: Settings, options: BacktestOptions) -> tuple[PipelineSource, BacktestOptions]:
    """The settings' pipeline, and the columns that they know of its data."""
    from tailrace.backtest.request import PipelineSource

    known, columns = settings.send, options.columns
    source = PipelineSource.load(reference=settings.pipeline)
    columns = columns._replace(
        id=columns.id or known.id,
        time=columns.time or known.time,
        label=columns.label or known.label or source.pipeline.label.name,
        label_time=columns.label_time or known.label_time,
    )
    return source, options._replace(columns=columns)
