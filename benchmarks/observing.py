"""What metrics cost: the worker's throughput with them and without, in turns, on the embedded log.

With them, somebody scrapes each second. Each run is a process of its own over the same topic; a round is one run of
each kind, in an order that changes. What counts is the median of the rounds' ratios: by processor seconds, which the
machine's other work disturbs least, and by the clock.
"""

from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec

from benchmarks import worker
from benchmarks.harness import Child, Row, at_least, embedded
from benchmarks.throughput import Course, prepare
from benchmarks.workload import PARTITIONS, pipeline
from streams.log import Delivery

GROUP = "metrics"
BAR = 0.97
_EVERY_S = 1.0  # between two scrapes: five times as often as usual


def measure(directory: Path, events: int, rounds: int) -> list[Row]:
    """The ratios of throughput with metrics and without."""
    course = prepare(embedded(directory, "metrics"), events)
    found: dict[bool, list[worker.Report]] = {True: [], False: []}
    for round in range(rounds):
        for metrics in (round % 2 == 0, round % 2 == 1):
            found[metrics].append(_run(course, events, metrics, f"{round}{'on' if metrics else 'off'}"))
    course.log.close()
    pairs = list(zip(found[True], found[False], strict=True))
    return [
        _ratio("with / without, by CPU seconds", [b.cpu_seconds / a.cpu_seconds for a, b in pairs]),
        _ratio("with / without, by the clock", [b.seconds / a.seconds for a, b in pairs]),
        Row(GROUP, "with", median(events / a.seconds for a, _ in pairs), "events/s"),
        Row(GROUP, "without", median(events / b.seconds for _, b in pairs), "events/s"),
    ]


def _ratio(what: str, ratios: list[float]) -> Row:
    row = at_least(GROUP, what, median(ratios), BAR)
    return msgspec.structs.replace(row, note=f"{min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds")


def _run(course: Course, events: int, metrics: bool, name: str) -> worker.Report:
    declared = pipeline(predictions=f"bench.predictions-metrics{name}")
    course.log.create(declared.topology(PARTITIONS))
    port = _free_port() if metrics else 0
    job = worker.Job(
        course.place.url,
        declared.name,
        declared.topics,
        Delivery.EXACTLY_ONCE,
        course.place.commit_exactly_once,
        course.key,
        events,
        metrics=metrics,
        port=port,
    )
    done = threading.Event()
    scraper = threading.Thread(target=_scrape, args=(port, done))
    with Child("worker", job) as child:
        if metrics:
            scraper.start()
        try:
            return child.hear(worker.Report)
        finally:
            done.set()
            if metrics:
                scraper.join()


def _scrape(port: int, done: threading.Event) -> None:
    while not done.wait(_EVERY_S):
        with (
            suppress(OSError),  # it does not serve yet, or no more
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
        ):
            answer.read()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
