"""Events per second of the same job in Tailrace's worker, its Faust integration and other stream processors.

The topic is filled beforehand. Contenders run one after another, in rounds. Each is measured from outside, by the
number of predictions from the first readable one to the last, or for some seconds. The output is checked.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
from rich.console import Console

from benchmarks.__main__ import save, table
from benchmarks.harness import NO_KAFKA, ROOT, Place, Row, kafka
from benchmarks.peers.environment import PEERS, NotInstallable, python_with
from benchmarks.peers.job import Job, Plain
from benchmarks.workload import PARTITIONS, Publisher, fill
from tailrace.streams.log.base import Log, Topic, TopicPartition
from tailrace.streams.log.records import Prediction
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log

GROUP = "peers"
START_LIMIT_S = 120.0
POLL_S = 0.02
CHECKED = 200


class Rate(NamedTuple):
    """Events per second by the clock and per second of the contender's processor time.

    The second depends neither on other work on the machine nor on the number of threads.
    """

    clock: float
    processor: float


class Contender(NamedTuple):
    """A program that does the job. `peer`: the environment that it needs; None: that of Tailrace."""

    name: str
    what: str
    command: tuple[str, ...]
    peer: str | None = None
    delivery: str = "at_least_once"


OURS = ("-m", "benchmarks.peers.our_worker")
BYTEWAX = ("-m", "bytewax.run", "benchmarks.peers.bytewax_flow")
QUIX = ("-m", "benchmarks.peers.quix_app")
FAUST = ("-m", "faust", "-A", "benchmarks.peers.faust_agent", "worker", "--without-web")
ATTACHED = ("-m", "faust", "-A", "benchmarks.peers.faust_attached", "worker", "--without-web")
CONTENDERS = (
    Contender("worker", "Tailrace's worker, at least once", OURS),
    Contender("exact", "Tailrace's worker, exactly once", OURS, None, "exactly_once"),
    Contender("bytewax", "Bytewax, Tailrace's batched code inside", BYTEWAX, "bytewax"),
    Contender("attached", "Faust with an attached pipeline", ATTACHED),
    Contender("quix", "Quix Streams, row by row", QUIX, "quixstreams"),
    Contender("faust", "Faust, agent with take and send", FAUST),
)
BARS = (
    ("worker", "faust", 40.0),
    ("worker", "quix", 6.0),
    ("worker", "bytewax", 1.5),
    ("exact", "faust", None),
    ("exact", "quix", None),
    ("exact", "bytewax", None),
    ("attached", "faust", 5.0),
)


def main() -> int:
    """Run this benchmark and return the exit status: 1 if a ratio misses its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", nargs="*", help="contenders to run (all)")
    parser.add_argument("--events", type=int, default=600_000, help="events in the topic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="longest measurement of a contender, in seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tailrace-peers-") as directory, kafka(Path(directory) / "kafka") as place:
        if place is None:
            print(NO_KAFKA, file=sys.stderr)
            return 1
        rows = measure(place, Path(directory), options)
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    print(f"written to {save(rows, 'peers')}", file=sys.stderr)
    return 1 if any(row.met is False for row in rows) else 0


def measure(place: Place, directory: Path, options: argparse.Namespace) -> list[Row]:
    """Measure; return one row for each contender and one for each ratio."""
    pythons, missing = _pythons()
    bootstrap = place.url.removeprefix("kafka://")
    log = open_log(place.url, {"compression.type": "lz4"})
    job = Job(bootstrap, "peers.predictions", str(directory / "keys"))
    log.create(topology(job.declared, PARTITIONS))
    fill(log, job.declared.topics.events, options.events)
    publisher = Publisher(log, job.declared)
    trusted = directory / "keys" / "trusted"
    trusted.mkdir(parents=True)
    (trusted / "bench.pub").write_text(publisher.trusted)
    publisher.publish()
    chosen = [
        c for c in CONTENDERS if c.peer not in missing and c.name in (options.only or [x.name for x in CONTENDERS])
    ]
    rates: dict[str, list[Rate]] = {contender.name: [] for contender in chosen}
    for round in range(options.rounds):
        for contender in chosen:
            topic = f"peers.{contender.name}{round}"
            log.create([Topic(topic, PARTITIONS)])
            contender_job = msgspec.structs.replace(job, predictions=topic, delivery=contender.delivery)
            rate = _run(contender, contender_job, log, pythons[contender.peer], directory, options)
            rates[contender.name].append(rate)
            figures = f"{rate.clock:,.0f} events/s, {rate.processor:,.0f} per CPU second"
            print(f"round {round + 1}: {contender.what}: {figures}", file=sys.stderr)
    publisher.close()
    log.close()
    return _rows(rates, missing)


def _pythons() -> tuple[dict[str | None, str], dict[str | None, str]]:
    """Find the interpreter of each peer; return also the reasons for those that cannot be installed."""
    pythons: dict[str | None, str] = {None: sys.executable}
    missing: dict[str | None, str] = {}
    for peer in PEERS:
        try:
            pythons[peer] = str(python_with(peer))
        except NotInstallable as error:
            missing[peer] = str(error)
    return pythons, missing


def _run(contender: Contender, job: Job, log: Log, python: str, directory: Path, options: argparse.Namespace) -> Rate:
    """Run a contender and measure its rate. Raise RuntimeError if it ends, does not start or writes wrong output."""
    environment = {
        **os.environ,
        "PEERS_JOB": msgspec.json.encode(job).decode(),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    output = directory / f"{job.predictions}.log"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [python, *contender.command], cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=out
        )
    with process:
        try:
            rate = _watched(process, job.predictions, log, output, options)
        finally:
            process.kill()
    _check(log, job.predictions)
    return rate


def _watched(process: subprocess.Popen[bytes], topic: str, log: Log, output: Path, options: argparse.Namespace) -> Rate:
    started, first, used, before = time.monotonic(), 0.0, 0.0, 0
    while True:
        time.sleep(POLL_S)
        now, count = time.monotonic(), sum(log.end_positions(topic).values())
        if process.poll() is not None or (not before and now - started > START_LIMIT_S):
            raise RuntimeError(f"{topic} stopped after {count} predictions: {output.read_text()[-3_000:]}")
        if not before:
            first, used, before = now, _processor(process.pid), count
        elif count >= options.events or now - first > options.seconds:
            return Rate((count - before) / (now - first), (count - before) / (_processor(process.pid) - used))


def _processor(pid: int) -> float:
    """Read the processor time of a process, all threads together, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _check(log: Log, topic: str) -> None:
    """Check that the first predictions are complete and have the scores of the network. Raise RuntimeError if not."""
    plain = Plain()
    for at in (TopicPartition(topic, partition) for partition in range(PARTITIONS)):
        records = next(iter(log.scan(at, 0, CHECKED)), [])
        for record in records[:CHECKED]:
            prediction = msgspec.json.decode(record.value or b"", type=Prediction)
            event = plain.decode(bytes(prediction.features))
            (expected,) = plain.scores([event.x])
            same_id = record.key == prediction.id.encode() == str(event.id).encode()
            correct = same_id and abs(prediction.scores[0] - expected) < 1e-4
            if not correct or log.partition_of(topic, record.key or b"").partition != at.partition:
                raise RuntimeError(f"{topic} holds a wrong prediction: {record}")


def _rows(rates: dict[str, list[Rate]], missing: dict[str | None, str]) -> list[Row]:
    versions = {"faust": "faust-streaming", "attached": "faust-streaming", "quix": "quixstreams", "bytewax": "bytewax"}
    rows = []
    for contender in CONTENDERS:
        measured = rates.get(contender.name)
        package = versions.get(contender.name, "tailrace")
        release = PEERS[package][0].rpartition("==")[2] if package in PEERS else version(package)
        what = f"{contender.what} ({package} {release})"
        if not measured:
            rows.append(Row(GROUP, what, None, note=missing.get(contender.peer, "not run")))
            continue
        clock, processor = zip(*measured, strict=True)
        note = f"{min(clock):,.0f} to {max(clock):,.0f}; {median(processor):,.0f} per CPU second"
        rows.append(Row(GROUP, what, median(clock), "events/s", note=note))
    for over, under, bar in BARS:
        if rates.get(over) and rates.get(under):
            pairs = list(zip(rates[over], rates[under], strict=True))
            ratio = median(x.clock / y.clock for x, y in pairs)
            text, met = ("", None) if bar is None else (f">= {bar:g}", ratio >= bar)
            note = f"{median(x.processor / y.processor for x, y in pairs):.3g} x per CPU second"
            rows.append(Row(GROUP, f"{over}/{under}", ratio, "x", text, met, note))
    return rows


if __name__ == "__main__":
    sys.exit(main())
