"""Hot swaps under load on the embedded log: pause of scoring, memory, errors, and duration of batches."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import sender, worker
from benchmarks.harness import Child, Row, at_most, embedded, percentiles
from benchmarks.workload import PARTITIONS, Publisher, pipeline
from tailrace.streams.log.base import Delivery
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log

GROUP = "swaps"
SWAPS = 200
RATE = 5_000  # events/s meanwhile
QUIET_S = 3.0  # the same load without swaps
EVERY_S = 0.1
EARLY = 20  # swap from which on memory must not grow
GROWTH_MB = 20.0


def measure(directory: Path) -> list[Row]:
    """Measure pause, memory and errors of 200 swaps."""
    place = embedded(directory, "swaps")
    log, declared = open_log(place.url), pipeline("swaps")
    log.create(topology(declared, PARTITIONS))
    publisher = Publisher(log, declared)
    publisher.publish()
    topics = declared.topics
    job = worker.Job(
        place.url, declared.name, topics, Delivery.EXACTLY_ONCE, place.commit_exactly_once, publisher.trusted,
        swaps=SWAPS + 1,
    )  # fmt: skip
    with (
        Child("worker", job) as work,
        Child("sender", sender.Job(place.url, topics.events, RATE)) as send,
    ):
        work.hear(str)  # the worker has its partitions
        time.sleep(QUIET_S)
        while not work.speaks:
            publisher.publish()
            time.sleep(EVERY_S)
        report = work.hear(worker.Report)
        send.stop()
    publisher.close()
    log.close()
    return _rows(report)


def _rows(report: worker.Report) -> list[Row]:
    began, *swaps = report.swaps  # the first swap came before the load
    pauses = [pause * 1000 for _, pause in swaps]
    p50, p99, longest = percentiles(pauses, 50, 99, 100)
    first = swaps[0][0] - EVERY_S
    quiet = [seconds * 1000 for when, _, seconds in report.batches if began[0] + 1 < when < first]
    busy = [seconds * 1000 for when, _, seconds in report.batches if when >= first]
    early, late = report.resident[EARLY] / 1e6, report.resident[-1] / 1e6
    errors = len(report.refusals) + report.aborts
    return [
        Row(GROUP, f"pause of {len(swaps)} swaps, p50", p50, "ms"),
        at_most(GROUP, "pause, p99", p99, 5.0),
        Row(GROUP, "pause, longest", longest, "ms"),
        at_most(GROUP, f"memory gained from swap {EARLY} on", late - early, GROWTH_MB, "MB"),
        Row(GROUP, "memory at the end", late, "MB"),
        at_most(GROUP, "refusals and aborts", errors, 0, ""),
        Row(GROUP, "batch without swaps, p50", percentiles(quiet, 50)[0], "ms"),
        Row(GROUP, "batch without swaps, p99", percentiles(quiet, 99)[0], "ms"),
        Row(GROUP, "batch during swaps, p50", percentiles(busy, 50)[0], "ms"),
        Row(GROUP, "batch during swaps, p99", percentiles(busy, 99)[0], "ms"),
    ]
