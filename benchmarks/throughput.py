"""Throughput in events per second over a topic filled beforehand: a hand-written loop and the worker on both logs.

Each contender is a process of its own. They run one after another, in rounds, so that other work on the machine
disturbs all of them; the bars apply to ratios within a round. A run counts only if every prediction is in its topic.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import worker
from benchmarks.by_hand import Report
from benchmarks.harness import NO_KAFKA, Child, Place, Row, at_least, embedded
from benchmarks.workload import PARTITIONS, Publisher, fill, pipeline
from tailrace.streams.log.base import Delivery, Log
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log

GROUP = "throughput"
BAR = 0.85


class Contender(NamedTuple):
    """A program that does the job, and its delivery mode."""

    name: str
    what: str
    module: str
    delivery: Delivery
    on_kafka: bool
    frozen: bool = True


CONTENDERS = (
    Contender("a", "hand-written over librdkafka, at least once", "by_hand", Delivery.AT_LEAST_ONCE, True, False),
    Contender("a2", "the same with a tuned garbage collector", "by_hand", Delivery.AT_LEAST_ONCE, True),
    Contender("b", "worker on Kafka, at least once", "worker", Delivery.AT_LEAST_ONCE, True),
    Contender("c", "worker on Kafka, exactly once", "worker", Delivery.EXACTLY_ONCE, True),
    Contender("d", "worker on the embedded log, exactly once", "worker", Delivery.EXACTLY_ONCE, False),
)


class Course(NamedTuple):
    """A log that holds the events and a release. `key`: the public key to trust, as PEM."""

    place: Place
    log: Log
    key: str


def measure(kafka: Place | None, directory: Path, events: int, rounds: int) -> list[Row]:
    """Measure the contenders (a) to (d) and the ratios between them."""
    places = {False: embedded(directory, "throughput"), True: kafka}
    courses = {on_kafka: prepare(place, events) for on_kafka, place in places.items() if place}
    rates: dict[str, list[float]] = {contender.name: [] for contender in CONTENDERS if contender.on_kafka in courses}
    for round in range(rounds):
        for contender in CONTENDERS:
            if contender.name in rates:
                rates[contender.name].append(_run(contender, courses[contender.on_kafka], events, round))
    for course in courses.values():
        course.log.close()
    rows = [
        Row(GROUP, f"({c.name}) {c.what}", median(rates[c.name]), "events/s", note=_spread(rates[c.name]))
        if c.name in rates
        else Row(GROUP, f"({c.name}) {c.what}", None, note=NO_KAFKA)
        for c in CONTENDERS
    ]
    for over, under in (("b", "a"), ("c", "b"), ("d", "a")):
        if over in rates and under in rates:
            ratios = [x / y for x, y in zip(rates[over], rates[under], strict=True)]
            rows.append(at_least(GROUP, f"{over}/{under}", median(ratios), BAR))
    return rows


def prepare(place: Place, events: int) -> Course:
    """Create the topics, write the events and publish a release."""
    log = open_log(place.url, {"compression.type": "lz4"} if place.url.startswith("kafka") else None)
    declared = pipeline()
    log.create(topology(declared, PARTITIONS))
    fill(log, declared.topics.events, events)
    publisher = Publisher(log, declared)
    publisher.publish()
    publisher.close()
    return Course(place, log, publisher.trusted)


def _run(contender: Contender, course: Course, events: int, round: int) -> float:
    declared = pipeline(predictions=f"bench.predictions-{contender.name}{round}")
    course.log.create(topology(declared, PARTITIONS))
    exactly_once = contender.delivery is Delivery.EXACTLY_ONCE
    interval = course.place.commit_exactly_once if exactly_once else course.place.commit_at_least_once
    job = worker.Job(
        course.place.url,
        declared.name,
        declared.topics,
        contender.delivery,
        interval,
        course.key,
        events,
        contender.frozen,
    )
    with Child(contender.module, job) as child:
        report = child.hear(Report)
    written = _count(course.log, declared.topics.predictions)
    if written != events:
        raise RuntimeError(f"({contender.name}) wrote {written} predictions for {events} events")
    return events / report.seconds


def _count(log: Log, topic: str) -> int:
    ends = log.end_positions(topic)
    return sum(len(records) for at, end in ends.items() for records in log.scan(at, 0, end))


def _spread(rates: list[float]) -> str:
    return f"{min(rates):,.0f} to {max(rates):,.0f} in {len(rates)} rounds"
