"""Live view of the demo: a table on a terminal, else a line every few seconds, and a summary at the end."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tailrace.demo.sender import Sender
from tailrace.demo.watch import Watcher
from tailrace.monitoring.telemetry.compare_text import sentences

_LINE_EVERY_S = 5.0


class Screen:
    """View on a stream. The demo uses standard error, because standard output is for data."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._live: Live | None = None
        self._shown = 0.0
        self._last = (0.0, 0)
        self._rate = 0.0

    def show(self, url: str, weeks: int) -> None:
        """Print the introduction and start the live table. `url`: address of the log; `weeks`: length of the replay."""
        self._console.print(f"{weeks} weeks of departures from New York, on {url}")
        self._console.print("Starting worker, joiner and retrainer as separate processes ...")
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def update(self, sender: Sender, watcher: Watcher) -> None:
        """Show the current state."""
        now = time.monotonic()
        since, before = self._last
        if now - since >= 1.0:
            self._rate = (watcher.predictions - before) / (now - since) if since else 0.0
            self._last = (now, watcher.predictions)
        if self._live is not None:
            self._live.update(self._picture(sender, watcher), refresh=True)
        elif now - self._shown >= _LINE_EVERY_S:
            self._shown = now
            self._console.print(self._line(sender, watcher))

    def verdict(self, summary: dict[str, Any]) -> None:
        """Remove the live table and print the summary."""
        if self._live is not None:
            self._live.stop()
        for line in verdict(summary):
            self._console.print(line)

    def _picture(self, sender: Sender, watcher: Watcher) -> Group:
        flow = Table(box=None, pad_edge=False)
        for column in ("", "events", "predictions", "labels", "examples", "releases"):
            flow.add_column(column, justify="left" if not column else "right")
        counts = (sender.events, watcher.predictions, sender.labels, watcher.examples, watcher.releases)
        flow.add_row(_day(watcher.newest), *(f"{count:,}" for count in counts))
        flow.add_row("", f"{self._rate:,.0f}/s", f"lag {max(0, sender.events - watcher.predictions):,}")
        quality = Table(box=None, pad_edge=False)
        for column in ("", "log-loss, newest 5,000", "log-loss, all", "AUC, all"):
            quality.add_column(column, justify="left" if not column else "right")
        for model, name in (("live", "live model"), ("frozen", "frozen after week 1")):
            recent, all_ = watcher.recent_quality(model), watcher.quality(model)
            quality.add_row(name, _number(recent["log_loss"]), _number(all_["log_loss"]), _number(all_["auc"]))
        return Group(flow, Text(), quality, Text(), *(Text(line, style="dim") for line in list(watcher.recent)))

    def _line(self, sender: Sender, watcher: Watcher) -> str:
        live, frozen = watcher.quality("live")["log_loss"], watcher.quality("frozen")["log_loss"]
        return (
            f"{_day(watcher.newest)}: {sender.events:,} events, {watcher.predictions:,} predictions "
            f"({self._rate:,.0f}/s), {watcher.examples:,} examples, release {watcher.releases}; "
            f"log-loss live {_number(live)}, frozen {_number(frozen)}"
        )


def verdict(summary: dict[str, Any]) -> list[str]:
    """The result in a few lines."""
    s = summary
    pause = s["swap_pause_ms"]
    exact = not s["missing"] and not s["duplicates"]
    once = "each exactly once" if exact else f"{s['missing']:,} missing, {s['duplicates']:,} doubled"
    live, frozen = s["live"], s["frozen"]
    return [
        f"{s['events']:,} events, {s['predictions']:,} predictions: {once}; {s['dead_letters']:,} dead letters",
        f"{s['labels']:,} labels came hours later, {s['examples']:,} examples; {s['unlabelled']:,} never got a label",
        f"{s['releases']} releases ({s['updates']} online updates), {s['swaps']} hot swaps: "
        f"pause p50 {pause['p50']:.3f} ms, max {pause['max']:.3f} ms",
        f"log-loss {_number(live['log_loss'])} live, {_number(frozen['log_loss'])} frozen after week 1; "
        f"AUC {_number(live['auc'])} live, {_number(frozen['auc'])} frozen",
        *sentences(s["comparison"]),
        f"{s['events_per_second']:,.0f} events/s, {s['seconds']:.0f} s in all",
    ]


def _day(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%a %d %b %Y}" if time else "starting"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
