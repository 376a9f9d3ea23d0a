"""What metrics cost: the worker's throughput with them and without, in turns, on the embedded log.

One process over one topic keeps metrics for some thousand events, then keeps none for as many, and so on: whatever else
the machine does meets both alike. Each turn is compared with the mean of the turns before and behind it; what counts is
the median of these ratios, by processor seconds, which other work disturbs least, and by the clock. A scrape's cost is
added to the turns with metrics as if somebody scraped each five seconds, as Prometheus is configured here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from benchmarks import worker
from benchmarks.harness import Child, Row, at_least, embedded
from benchmarks.throughput import Course, prepare
from benchmarks.workload import PARTITIONS, pipeline
from tailrace.streams.log.base import Delivery
from tailrace.streams.log.topology import topology

GROUP = "metrics"
BAR = 0.97
_TURN = 10_000  # events
_SCRAPED_S = 5.0


def measure(directory: Path, events: int, rounds: int) -> list[Row]:
    """The ratios of throughput with metrics and without."""
    course = prepare(embedded(directory, "metrics"), events)
    reports = [_run(course, events, str(round)) for round in range(rounds)]
    course.log.close()
    scrape_s = median(report.scrape_s for report in reports)

    def cost(seconds: Callable[[worker.Turn], float]) -> Callable[[worker.Turn], float]:
        """Seconds an event."""
        return lambda turn: (seconds(turn) + turn.metrics * scrape_s * turn.seconds / _SCRAPED_S) / turn.events

    rows = [
        _row(what, [ratio for report in reports for ratio in _ratios(report.turns, cost(seconds))])
        for what, seconds in (("CPU seconds", lambda turn: turn.cpu_seconds), ("the clock", lambda turn: turn.seconds))
    ]
    return [*rows, Row(GROUP, "CPU time of a scrape", 1000 * scrape_s, "ms")]


def _run(course: Course, events: int, name: str) -> worker.Report:
    declared = pipeline(predictions=f"bench.predictions-metrics{name}")
    course.log.create(topology(declared, PARTITIONS))
    job = worker.Job(
        course.place.url,
        declared.name,
        declared.topics,
        Delivery.EXACTLY_ONCE,
        course.place.commit_exactly_once,
        course.key,
        events,
        turn=_TURN,
    )
    with Child("worker", job) as child:
        return child.hear(worker.Report)


def _ratios(turns: list[worker.Turn], cost: Callable[[worker.Turn], float]) -> list[float]:
    """Of each turn with metrics: what an event costs in the two turns beside it, by what it costs in this one."""
    return [
        (cost(before) + cost(behind)) / 2 / cost(turn)
        for before, turn, behind in zip(turns, turns[1:], turns[2:], strict=False)
        if turn.metrics
    ]


def _row(what: str, ratios: list[float]) -> Row:
    row = at_least(GROUP, f"throughput with / without, by {what}", median(ratios), BAR)
    low, high = sorted(ratios)[len(ratios) // 4], sorted(ratios)[3 * len(ratios) // 4]
    return msgspec.structs.replace(row, note=f"half of {len(ratios)} turns: {low:.3f} to {high:.3f}")
