"""Command `backtest`: replay history through policies, and compare their predictions and costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.common import (
    DropOption,
    IdOption,
    JsonOption,
    LabelOption,
    LabelTimeOption,
    TimeOption,
    column_names,
    load_settings,
    log_to_stderr,
    print_json,
    print_message,
    progress_bar,
)

if TYPE_CHECKING:
    from tailrace.app.settings import Settings
    from tailrace.backtest.request import BacktestOptions, PipelineSource


def register(app: typer.Typer) -> None:
    """Add the command `backtest` to `app`."""
    app.command()(backtest)


def backtest(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="[PIPELINE]",
            help="path.py or module:attribute. Default: inferred from the data if --label is given, else configured.",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", metavar="FILE|URL", help="File (.csv, .jsonl or .parquet), or URL of a log.")
    ] = "",
    label: LabelOption = None,
    id: IdOption = None,
    time: TimeOption = None,
    label_time: LabelTimeOption = None,
    drop: DropOption = "",
    label_delay: Annotated[
        str | None,
        typer.Option(
            "--label-delay",
            metavar="N|DURATION|natural",
            help="Label delay: number of events, duration such as 12h, or natural.",
        ),
    ] = None,
    policy: Annotated[
        list[Path] | None, typer.Option("--policy", metavar="FILE.toml", help="Policy to compare; may be repeated.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add baseline models, most of them from River.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Directory for an HTML report with curves and a comparison."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of initial weights and replay.")] = 0,
    score_from: Annotated[
        int, typer.Option("--score-from", min=0, metavar="N", help="Exclude the first N events from the metrics.")
    ] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Replay only the first N events.")
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=1, metavar="ROWS/S", help="Training speed on the simulated clock.")
    ] = 50_000.0,
    as_json: JsonOption = False,
) -> None:
    """Replay history through one or several policies, and compare their predictions and costs."""
    from tailrace.backtest.request import BacktestOptions, inferred
    from tailrace.backtest.result import builtin
    from tailrace.backtest.run import backtest
    from tailrace.datafiles.read import Columns
    from tailrace.errors import Exit, UserError

    if not data:
        raise UserError("--data is missing: name a file, or a log such as sqlite:///.tailrace/log.db", Exit.USAGE)
    log_to_stderr()
    settings = load_settings(pipeline=reference)
    options = BacktestOptions(
        data=data,
        columns=Columns(id, time, label, label_time),
        drop=column_names(drop),
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
        print_message((source.text or "").rstrip() + "\n")
    else:
        source, options = _load_declared(settings, options)
    with progress_bar() as report_progress:
        result = backtest(source, options, settings, report_progress)
    if report is not None:
        from tailrace.backtest.report.page import write

        print_message(f"report: {write(result, report)}")
    if as_json:
        print_json(builtin(result))
    else:
        from tailrace.backtest.report.terminal import show

        show(result, sys.stdout)


def _load_declared(settings: Settings, options: BacktestOptions) -> tuple[PipelineSource, BacktestOptions]:
    """Load the configured pipeline, and complete the columns of the data from the settings."""
    from tailrace.backtest.request import PipelineSource

    defaults, columns = settings.send, options.columns
    source = PipelineSource.load(reference=settings.pipeline)
    columns = columns._replace(
        id=columns.id or defaults.id,
        time=columns.time or defaults.time,
        label=columns.label or defaults.label or source.pipeline.label.name,
        label_time=columns.label_time or defaults.label_time,
    )
    return source, options._replace(columns=columns)
