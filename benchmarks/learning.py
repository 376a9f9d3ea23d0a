"""Quality of the default model on streams with late labels, beside reference models, with one configuration for all.

    make bench-learning       or: python -m benchmarks.learning [--data DIR] [--synthetic] [--seeds N] [--only NAME ...]

With `--data`, the streams are those of that directory: electricity and covertype (the first 50,000 events) with labels
500 events late, and New York flights (the first 60,000) with their natural label delay. Without it, the stream is the
three months of flights that the demo ships. With `--synthetic`, the streams are those of `benchmarks.synthetic`, with
labels 500 events late. Figures are prequential, from event 2,500 on. CPU seconds include scoring and learning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import synthetic
from benchmarks.harness import Row, at_least, at_most
from tailrace.app.settings import Settings
from tailrace.backtest.request import BacktestOptions, inferred
from tailrace.backtest.result import BacktestEntry
from tailrace.backtest.run import backtest
from tailrace.datafiles.read import Columns
from tailrace.demo.flights import DATA as SHIPPED

SCORE_FROM = 2_500
FOREST = "forest"


class Figure(NamedTuple):
    """A column of the table: heading, field in `BacktestEntry`, digits, unit, and if it shows a spread."""

    head: str
    name: str
    digits: int
    unit: float = 1.0
    spread: bool = True


FIGURES = (
    Figure("accuracy %", "accuracy", 2, 100.0),
    Figure("AUC", "auc", 4),
    Figure("R2", "r2", 4),
    Figure("log-loss", "log_loss", 4),
    Figure("ECE", "calibration_error", 3, spread=False),
    Figure("CPU s", "cpu_seconds", 1, spread=False),
)


class Bars(NamedTuple):
    """Values that the default model has to reach on a stream; None: no bar."""

    accuracy: float | None = None
    auc: float | None = None
    log_loss: float | None = None


class Case(NamedTuple):
    """A stream and the request of its backtest."""

    name: str
    options: BacktestOptions
    bars: Bars = Bars()


def cases(data: Path | None) -> list[Case]:
    """List the real streams of a directory; without one, the flights that the demo ships."""
    flights = Columns(time="event_time", label="label", label_time="label_time")
    if data is None:
        return [_case("flights, shipped", SHIPPED, flights, "natural", 60_000, Bars())]
    return [
        _case("electricity", data / "electricity/electricity.csv.gz", Columns(label="label"), "500", None, Bars(0.785)),
        _case(
            "covertype, 50k",
            data / "covtype_100k/covtype_100k.csv.gz",
            Columns(label=_last_column(data / "covtype_100k/covtype_100k.csv.gz")),
            "500",
            50_000,
            Bars(0.83),
        ),
        _case(
            "flights, 60k",
            data / "nycflights13/nycflights13_H1.csv.gz",
            flights,
            "natural",
            60_000,
            Bars(0.775, 0.700, 0.502),
            ["arr_delay"],
        ),
    ]


def synthetic_cases(directory: Path, only: tuple[str, ...]) -> list[Case]:
    """Write the synthetic streams whose names begin with one of `only` to `directory`."""
    return [
        _case(name, synthetic.write(name, directory), Columns(label="label"), "500", None, Bars())
        for name in synthetic.STREAMS
        if name.startswith(only)
    ]


def measure(case: Case, seeds: int, settings: Settings) -> tuple[list[BacktestEntry], list[BacktestEntry]]:
    """Run the backtests; return the entries of the default model, one a seed, and those of the baselines."""
    subject = inferred(case.options)
    own: list[BacktestEntry] = []
    baselines: list[BacktestEntry] = []
    for seed in range(seeds):
        options = case.options._replace(seed=seed, baselines=seed == 0)
        outcome = backtest(subject, options, settings, lambda what, done, of: None)
        own += outcome.policies
        baselines = baselines or outcome.baselines
    return own, baselines


def rows(case: Case, own: list[BacktestEntry], baselines: list[BacktestEntry]) -> Iterator[Row]:
    """Compare the mean over the seeds with the bars."""
    if case.bars.accuracy:
        yield at_least(case.name, "accuracy", _mean(own, "accuracy"), case.bars.accuracy)
    if case.bars.auc:
        yield at_least(case.name, "AUC", _mean(own, "auc"), case.bars.auc)
    if case.bars.log_loss:
        yield at_most(case.name, "log-loss", _mean(own, "log_loss"), case.bars.log_loss, "")
    (forest,) = [entry.cpu_seconds for entry in baselines if entry.name == FOREST and entry.cpu_seconds]
    yield at_most(case.name, "CPU seconds / those of the forest", _mean(own, "cpu_seconds") / forest, 1 / 3, "")
    for what, figure in (("accuracy", "accuracy"), ("R2", "r2")):
        if best := _known(baselines, figure):
            yield at_least(case.name, f"{what}, at least that of the best baseline", _mean(own, figure), max(best))
    if least := _known(baselines, "log_loss"):
        yield at_most(case.name, "log-loss, at most that of the best baseline", _mean(own, "log_loss"), min(least), "")


def _case(
    name: str, path: Path, columns: Columns, delay: str, limit: int | None, bars: Bars, drop: list[str] | None = None
) -> Case:
    options = BacktestOptions(str(path), columns, drop or [], delay, score_from=SCORE_FROM, limit=limit)
    return Case(name, options, bars)


def _last_column(path: Path) -> str:
    from tailrace.datafiles.read import rows

    return list(next(rows(path)))[-1]


def _known(entries: list[BacktestEntry], figure: str) -> list[float]:
    """Collect a figure from the entries that have it."""
    return [value for entry in entries if (value := getattr(entry, figure)) is not None]


def _mean(entries: list[BacktestEntry], figure: str) -> float:
    return float(np.mean(_known(entries, figure)))


def _cell(figure: Figure, entries: list[BacktestEntry]) -> str:
    """Format the mean and, for several entries, half the range."""
    values = [figure.unit * value for value in _known(entries, figure.name)]
    spread = f" ±{(max(values) - min(values)) / 2:.{figure.digits}f}" if figure.spread and len(values) > 1 else ""
    return f"{np.mean(values):.{figure.digits}f}{spread}" if values else "-"


def _table(results: list[tuple[Case, list[BacktestEntry], list[BacktestEntry]]]) -> Table:
    shown = [figure for figure in FIGURES if any(_known(own, figure.name) for _, own, _ in results)]
    table = Table("", "", *(figure.head for figure in shown))
    for case, own, baselines in results:
        table.add_row(case.name, f"default, {len(own)} seeds", *(_cell(figure, own) for figure in shown), style="bold")
        for entry in baselines:
            table.add_row("", entry.name, *(_cell(figure, [entry]) for figure in shown))
        table.add_section()
    return table


def main() -> int:
    """Run this benchmark and return the exit status: 1 if a figure misses its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--data", type=Path, help="directory of real streams")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="streams to measure, by name or prefix")
    parser.add_argument("--synthetic", action="store_true", help="use synthetic streams")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        only = tuple(options.only or [""])
        if options.synthetic:
            return compare(synthetic_cases(Path(directory), only), options.seeds)
        return compare([case for case in cases(options.data) if case.name.startswith(only)], options.seeds)


def compare(chosen: list[Case], seeds: int) -> int:
    """Measure these streams and print the tables; return 1 if a figure misses its bar, else 0."""
    results: list[tuple[Case, list[BacktestEntry], list[BacktestEntry]]] = []
    checked: list[Row] = []
    console = Console(width=None if sys.stdout.isatty() else 140)
    for case in chosen:
        own, baselines = measure(case, seeds, Settings())
        results.append((case, own, baselines))
        checked += rows(case, own, baselines)
        print(f"{case.name}: done", file=sys.stderr)
    console.print(_table(results))
    bars = Table("", "what", "value", "bar", "")
    for row in checked:
        bars.add_row(row.group, row.what, f"{row.value:.4f}", row.bar, "[green]met[/]" if row.met else "[red]missed[/]")
    console.print(bars)
    return 1 if any(row.met is False for row in checked) else 0


if __name__ == "__main__":
    sys.exit(main())
