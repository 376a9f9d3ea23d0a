"""The comparison on a terminal: one line a policy or baseline, the best figures in bold, and why policies trained."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tailrace.backtest.report.text import best, cell, columns, reasons, refused
from tailrace.backtest.result import Entry, Outcome

_REASONS = 4  # shown of each policy


def show(outcome: Outcome, stream: TextIO) -> None:
    """Draw the outcome. Away from a terminal lines are as long as they need be."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = 1_000
    console.print(Text(headline(outcome)))
    console.print(_table(outcome))
    for line in notes(outcome):
        console.print(Text(line, style="dim"))


def headline(outcome: Outcome) -> str:
    """What was replayed, in a line."""
    scored = max((entry.scored for entry in (*outcome.policies, *outcome.baselines)), default=0)
    return (
        f"{outcome.data}: {outcome.events:,} events, {outcome.labels:,} labels (delay {outcome.label_delay}), "
        f"{scored:,} scored"
    )


def notes(outcome: Outcome) -> list[str]:
    """Why each policy trained and what the gate refused, and where the joules come from."""
    lines = [f"{entry.name}: {_trained(entry)}" for entry in outcome.policies if entry.retrainings]
    entries = (*outcome.policies, *outcome.baselines)
    sources = sorted({entry.joules_from for entry in entries if entry.joules_from})
    lines.append(f"training was charged with {outcome.training_rate:,.0f} rows/s on the simulated clock")
    return [*lines, f"joules: {', '.join(sources)}"] if sources else lines


def _trained(entry: Entry) -> str:
    given = reasons(entry.retrainings)
    shown = [f"{count} × {reason}" for reason, count in given[:_REASONS]]
    others = sum(count for _, count in given[_REASONS:])
    not_released = refused(entry)
    return "; ".join(
        [*shown, *([f"{others} others"] if others else []), *([f"{not_released} not released"] if not_released else [])]
    )


def _table(outcome: Outcome) -> Table:
    shown, entries = columns(outcome), [*outcome.policies, *outcome.baselines]
    ahead = [best(column, entries) for column in shown]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in shown:
        table.add_column(column.head, justify="right", no_wrap=True)
    for entry in entries:
        cells = [cell(column, entry) for column in shown]
        style = "" if entry in outcome.policies else "dim"
        texts = (Text(text, style="bold" if text == first else style) for text, first in zip(cells, ahead, strict=True))
        table.add_row(Text(entry.name, style=style), *texts)
    return table
