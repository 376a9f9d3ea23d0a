"""Comparison table on a terminal, followed by the retraining runs of each policy and the source of the joules."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tailrace.backtest.report.text import best, cell, columns, not_released, runs_by_trigger
from tailrace.backtest.result import BacktestEntry, BacktestResult


def show(result: BacktestResult, stream: TextIO) -> None:
    """Print the result as a table. If `stream` is not a terminal, lines are not wrapped and have no colours."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = 1_000
    console.print(Text(headline(result)))
    console.print(_table(result))
    for line in notes(result):
        console.print(Text(line, style="dim"))


def headline(result: BacktestResult) -> str:
    """Return one line on the replayed data: its name and the numbers of events and labels."""
    scored = max((entry.scored for entry in (*result.policies, *result.baselines)), default=0)
    return (
        f"{result.data}: {result.events:,} events, {result.labels:,} labels (delay {result.label_delay}), "
        f"{scored:,} scored"
    )


def notes(result: BacktestResult) -> list[str]:
    """Return lines on the retraining runs of each policy by trigger, the training rate and the source of the joules."""
    lines = [f"{entry.name}: {_runs(entry)}" for entry in result.policies if entry.retrainings]
    entries = (*result.policies, *result.baselines)
    sources = sorted({entry.joules_from for entry in entries if entry.joules_from})
    lines.append(f"training was charged with {result.training_rate:,.0f} rows/s on the simulated clock")
    return [*lines, f"joules: {', '.join(sources)}"] if sources else lines


def _runs(entry: BacktestEntry) -> str:
    text = f"runs by trigger: {runs_by_trigger(entry.retrainings)}"
    refused = not_released(entry)
    return f"{text}; {refused:,} not released" if refused else text


def _table(result: BacktestResult) -> Table:
    shown, entries = columns(result), [*result.policies, *result.baselines]
    best_texts = [best(column, entries) for column in shown]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in shown:
        table.add_column(column.head, justify="right", no_wrap=True)
    for entry in entries:
        style = "" if entry in result.policies else "dim"
        texts = [cell(column, entry) for column in shown]
        cells = (Text(t, style="bold" if t == top else style) for t, top in zip(texts, best_texts, strict=True))
        table.add_row(Text(entry.name, style=style), *cells)
    return table
