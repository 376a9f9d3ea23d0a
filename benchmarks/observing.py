"""Cost of metrics: throughput of the worker with and without metrics on the embedded log.

One process alternates over one topic: some thousand events with metrics, as many without, and so on, so that other work
on the machine disturbs both equally. Each turn with metrics is compared with the mean of its two neighbours. The result
is the median ratio, by processor seconds, which other work disturbs least, and by the clock. Turns with metrics are
charged for one scrape every five seconds, the interval in the shipped Prometheus configuration.
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
    """Measure the ratio of the throughput with metrics to that without."""
    course = prepare(embedded(directory, "metrics"), events)
    reports = [_run(course, events, str(round)) for round in range(rounds)]
    course.log.close()
    scrape_s = median(report.scrape_s for report in reports)

    def cost(seconds: Callable[[worker.Turn], float]) -> Callable[[worker.Turn], float]:
        """Seconds per event, scrapes included."""
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
    """For each turn with metrics: mean cost of an event in the two neighbours, divided by its cost in this turn."""
    return [
        (cost(before) + cost(behind)) / 2 / cost(turn)
        for before, turn, behind in zip(turns, turns[1:], turns[2:], strict=False)
        if turn.metrics
    ]


def _row(what: str, ratios: list[float]) -> Row:
    row = at_least(GROUP, f"throughput with / without metrics, by {what}", median(ratios), BAR)
    low, high = sorted(ratios)[len(ratios) // 4], sorted(ratios)[3 * len(ratios) // 4]
    return msgspec.structs.replace(row, note=f"middle half of {len(ratios)} turns: {low:.3f} to {high:.3f}")
