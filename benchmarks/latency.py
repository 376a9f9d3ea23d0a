"""Latency from an event sent to its prediction read by another process, at a steady rate of events.

Sender, worker and reader are processes of their own. The event time is the time at which the event was passed to the
client of the sender, so the way to the log is included. The warm-up is not.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from benchmarks import sender, worker
from benchmarks.harness import NO_KAFKA, Child, Place, Row, at_most, embedded, percentiles
from benchmarks.workload import PARTITIONS, Publisher, pipeline
from tailrace.streams.log.base import Delivery, Log
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log

GROUP = "latency"
WARM_UP_S = 3.0
BROKER_WARM_UP_S = 20.0  # for this long the broker's JIT compiler takes one of the cores under this load
MOST_BEHIND_S = 0.5  # delay of the sender above which a run does not count
SILENCE_S = 5.0  # time without a prediction after which a run ends
FAST, SLOW = 20_000, 2_000
LINGER_MS = 2  # of the hand-written loop


class Head(msgspec.Struct, gc=False):
    """The event time of a prediction, in unix seconds."""

    time: float


class Contender(NamedTuple):
    """A predictor and its delivery mode."""

    module: str
    delivery: Delivery
    bars: tuple[float, float] | None = None  # p50 and p99 in milliseconds, at the fast rate

    @property
    def name(self) -> str:
        """Name in the result table."""
        return ("hand-written, " if self.module == "by_hand" else "") + self.delivery.replace("_", " ")


ON_KAFKA = (
    Contender("by_hand", Delivery.AT_LEAST_ONCE),
    Contender("worker", Delivery.AT_LEAST_ONCE, (10.0, 50.0)),
    Contender("worker", Delivery.EXACTLY_ONCE, (45.0, 100.0)),
)
EMBEDDED = (Contender("worker", Delivery.EXACTLY_ONCE),)


def measure(kafka: Place | None, directory: Path, seconds: float, rounds: int) -> list[Row]:
    """Measure p50 and p99 for both rates, logs and delivery modes: medians of alternating rounds."""
    rows: list[Row] = []
    if kafka is None:
        rows.append(Row(GROUP, "Kafka", None, note=NO_KAFKA))
    else:
        _latencies(kafka, ON_KAFKA[-1], FAST, BROKER_WARM_UP_S)
        rows += _measure(kafka, ON_KAFKA, FAST, seconds, rounds)
        rows += _measure(kafka, ON_KAFKA, SLOW, seconds, 1)
    for rate in (FAST, SLOW):
        rows += _measure(embedded(directory, f"latency-{rate}"), EMBEDDED, rate, seconds, rounds if rate == FAST else 1)
    return rows


def _measure(place: Place, contenders: Sequence[Contender], rate: int, seconds: float, rounds: int) -> list[Row]:
    results: dict[Contender, list[list[float]]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            ages = _latencies(place, contender, rate, seconds)
            results[contender].append(percentiles([age * 1000 for age in ages], 50, 99))
    return [row for contender in contenders for row in _rows(place, contender, rate, results[contender])]


def _rows(place: Place, contender: Contender, rate: int, rounds: list[list[float]]) -> Iterator[Row]:
    bars = contender.bars if rate == FAST else None
    for name, values, bar in zip(("p50", "p99"), zip(*rounds, strict=True), bars or (None, None), strict=True):
        what = f"{place.name}, {contender.name}, {rate:,} events/s, {name}"
        row = Row(GROUP, what, median(values), "ms") if bar is None else at_most(GROUP, what, median(values), bar)
        spread = f"{min(values):.3g} to {max(values):.3g} in {len(values)} rounds" if len(values) > 1 else ""
        yield msgspec.structs.replace(row, note=spread)


def _latencies(place: Place, contender: Contender, rate: int, seconds: float) -> list[float]:
    log = open_log(place.url)
    declared = pipeline(f"latency-{secrets.token_hex(4)}")
    log.create(topology(declared, PARTITIONS))
    publisher = Publisher(log, declared)
    publisher.publish()
    publisher.close()
    exactly_once = contender.delivery is Delivery.EXACTLY_ONCE
    interval = place.commit_exactly_once if exactly_once else place.commit_at_least_once
    topics = declared.topics
    job = worker.Job(
        place.url, declared.name, topics, contender.delivery, interval, publisher.trusted, linger_ms=LINGER_MS
    )
    with Child(contender.module, job) as work:
        work.hear(str)  # the worker has its partitions
        with Child("sender", sender.Job(place.url, topics.events, rate, WARM_UP_S + seconds)) as send:
            ages = _read(log, topics.predictions, int(rate * (WARM_UP_S + seconds)))
            behind = send.hear(sender.Report).behind
    log.close()
    if behind > MOST_BEHIND_S:
        raise RuntimeError(f"the sender ended {behind:.1f} s late: this machine cannot send {rate:,} events/s")
    return ages


def _read(log: Log, topic: str, expected: int) -> list[float]:
    """Read `expected` predictions; return the age of each event in seconds when its prediction was read."""
    decoder = msgspec.json.Decoder(Head)
    reader = log.reader([topic])
    ages: list[float] = []
    read, first, last = 0, 0.0, time.monotonic() + SILENCE_S  # the child processes take time to start
    while read < expected and time.monotonic() - last < SILENCE_S:
        records = reader.read(10_000, 0.1).records
        if not records:
            continue
        now, last = time.time(), time.monotonic()
        times = [head.time for head in decoder.decode_lines(b"\n".join([record.value or b"" for record in records]))]
        first = first or min(times)
        ages += [now - sent for sent in times if sent >= first + WARM_UP_S]
        read += len(records)
    reader.close()
    if read < expected:
        raise RuntimeError(f"read only {read} of {expected} predictions")
    return ages
