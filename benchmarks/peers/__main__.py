"""Events per second of the same job in our worker, in the Faust integration, and in other stream processors.

The topic is filled beforehand; contenders run one after another, in rounds. Each is watched from outside: how many
predictions come between the first that can be read and the last, or after some seconds. What is written is checked.
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
    """Events per second by the clock, and per second of the contender's own processor time: the second does not
    depend on what else the machine does, nor on how many threads share the work."""

    clock: float
    processor: float


class Contender(NamedTuple):
    """One way of doing the job. `peer`: the environment that it needs, if not ours."""

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
    Contender("worker", "our worker, at least once", OURS),
    Contender("exact", "our worker, exactly once", OURS, None, "exactly_once"),
    Contender("bytewax", "Bytewax, our batched code inside", BYTEWAX, "bytewax"),
    Contender("attached", "Faust, pipeline attached", ATTACHED),
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
    """Measure; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", nargs="*", help="contenders to run (all)")
    parser.add_argument("--events", type=int, default=600_000, help="events in the topic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a contender is watched at most")
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
    """One row for each contender, and one for each ratio."""
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
            mine = msgspec.structs.replace(job, predictions=topic, delivery=contender.delivery)
            rate = _run(contender, mine, log, pythons[contender.peer], directory, options)
            rates[contender.name].append(rate)
            told = f"{rate.clock:,.0f} events/s, {rate.processor:,.0f} per CPU second"
            print(f"round {round + 1}: {contender.what}: {told}", file=sys.stderr)
    publisher.close()
    log.close()
    return _rows(rates, missing)


def _pythons() -> tuple[dict[str | None, str], dict[str | None, str]]:
    """The interpreter for each peer, and why some cannot be had."""
    pythons: dict[str | None, str] = {None: sys.executable}
    missing: dict[str | None, str] = {}
    for peer in PEERS:
        try:
            pythons[peer] = str(python_with(peer))
        except NotInstallable as why:
            missing[peer] = str(why)
    return pythons, missing


def _run(contender: Contender, job: Job, log: Log, python: str, directory: Path, options: argparse.Namespace) -> Rate:
    """How fast it was. Raises RuntimeError when it ends, does not begin, or writes something else than it should."""
    environment = {
        **os.environ,
        "PEERS_JOB": msgspec.json.encode(job).decode(),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    said = directory / f"{job.predictions}.log"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [python, *contender.command], cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=out
        )
    with process:
        try:
            rate = _watched(process, job.predictions, log, said, options)
        finally:
            process.kill()
    _check(log, job.predictions)
    return rate


def _watched(process: subprocess.Popen[bytes], topic: str, log: Log, said: Path, options: argparse.Namespace) -> Rate:
    started, first, used, before = time.monotonic(), 0.0, 0.0, 0
    while True:
        time.sleep(POLL_S)
        now, count = time.monotonic(), sum(log.end_positions(topic).values())
        if process.poll() is not None or (not before and now - started > START_LIMIT_S):
            raise RuntimeError(f"{topic} gave nothing more after {count} predictions: {said.read_text()[-3_000:]}")
        if not before:
            first, used, before = now, _processor(process.pid), count
        elif count >= options.events or now - first > options.seconds:
            return Rate((count - before) / (now - first), (count - before) / (_processor(process.pid) - used))


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _check(log: Log, topic: str) -> None:
    """The first predictions are whole, and say what the network says."""
    plain = Plain()
    for at in (TopicPartition(topic, partition) for partition in range(PARTITIONS)):
        records = next(iter(log.scan(at, 0, CHECKED)), [])
        for record in records[:CHECKED]:
            said = msgspec.json.decode(record.value or b"", type=Prediction)
            event = plain.decode(bytes(said.features))
            (due,) = plain.scores([event.x])
            fine = abs(said.scores[0] - due) < 1e-4 and record.key == said.id.encode() == event.id.encode()
            if not fine or log.partition_of(topic, record.key or b"").partition != at.partition:
                raise RuntimeError(f"{topic} holds a prediction that is not as it should be: {record}")


def _rows(rates: dict[str, list[Rate]], missing: dict[str | None, str]) -> list[Row]:
    versions = {"faust": "faust-streaming", "attached": "faust-streaming", "quix": "quixstreams", "bytewax": "bytewax"}
    rows = []
    for contender in CONTENDERS:
        found = rates.get(contender.name)
        package = versions.get(contender.name, "tailrace")
        release = PEERS[package][0].rpartition("==")[2] if package in PEERS else version(package)
        what = f"{contender.what} ({package} {release})"
        if not found:
            rows.append(Row(GROUP, what, None, note=missing.get(contender.peer, "not run")))
            continue
        clock, processor = zip(*found, strict=True)
        note = f"{min(clock):,.0f} to {max(clock):,.0f}; {median(processor):,.0f} per CPU second"
        rows.append(Row(GROUP, what, median(clock), "events/s", note=note))
    for over, under, bar in BARS:
        if rates.get(over) and rates.get(under):
            pairs = list(zip(rates[over], rates[under], strict=True))
            ratio = median(x.clock / y.clock for x, y in pairs)
            told, met = ("", None) if bar is None else (f">= {bar:g}", ratio >= bar)
            note = f"{median(x.processor / y.processor for x, y in pairs):.3g} x per CPU second"
            rows.append(Row(GROUP, f"{over}/{under}", ratio, "x", told, met, note))
    return rows


if __name__ == "__main__":
    sys.exit(main())
