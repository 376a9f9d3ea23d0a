"""Run all benchmarks; print a table and write benchmarks/results/<date>.json."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import drift, freshness, join, latency, observing, swaps, throughput, training
from benchmarks.harness import ROOT, Place, Row, kafka

Measurement = Callable[[Place | None, Path], list[Row]]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    """Run the benchmarks and return the exit status: 1 if a figure misses its bar."""
    options = _options()
    measurements: dict[str, Measurement] = {
        "throughput": lambda place, at: throughput.measure(place, at, options.events, options.rounds),
        "metrics": lambda place, at: observing.measure(at, options.events, options.rounds),
        "latency": lambda place, at: latency.measure(place, at, options.seconds, options.rounds),
        "swaps": lambda place, at: swaps.measure(at),
        "join": lambda place, at: _join(at, options.events),
        "training": lambda place, at: training.measure(50_000, options.rounds),
        "drift": lambda place, at: drift.measure(options.rounds, 50_000),
        "freshness": lambda place, at: freshness.measure(at, options.rounds + 2),
    }
    rows: list[Row] = []
    console = Console(width=None if sys.stdout.isatty() else 140)
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as directory:
        at = Path(directory)
        with kafka(at / "kafka") as place:
            for name in options.only or measurements:
                started = time.monotonic()
                rows += measurements[name](place, at)
                print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    console.print(table(rows))
    path = save(rows)
    print(f"written to {path}", file=sys.stderr)
    return 1 if any(row.met is False for row in rows) else 0


def _join(directory: Path, count: int) -> list[Row]:
    result = join.measure(count, directory)
    note = f"{result.examples:,} examples; {result.held:,} held"
    return [
        Row(
            "join", "embedded log, exactly once", result.records_per_s, "records/s", f">= {join.BAR:,}",
            result.records_per_s >= join.BAR, note,
        ),
        Row("join", "time for a new joiner to rebuild the state", result.restore_s, "s"),
    ]  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="*", help="benchmarks to run (default: all)")
    parser.add_argument("--events", type=int, default=300_000, help="events in a throughput run")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each comparison")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of a latency run after its warm-up")
    return parser.parse_args()


def table(rows: list[Row]) -> Table:
    """Format the rows as a table for a terminal."""
    table = Table("", "what", "value", "unit", "bar", "", "note", title=_machine())
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        value = "-" if row.value is None else f"{row.value:,.0f}" if row.value >= 1_000 else f"{row.value:,.3g}"
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.met]
        table.add_row(row.group, row.what, value, row.unit, row.bar, verdict, row.note)
        if following is None or following.group != row.group:
            table.add_section()
    return table


def save(rows: list[Row], name: str = "") -> Path:
    """Write the rows as JSON and return the path. `name` is appended to the date in the file name."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{now:%Y-%m-%d}{'-' if name else ''}{name}.json"
    document = {"when": now.isoformat(timespec="seconds"), "machine": _machine(), "rows": rows}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path


def _machine() -> str:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"


if __name__ == "__main__":
    sys.exit(main())
