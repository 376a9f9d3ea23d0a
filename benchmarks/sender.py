"""A child process: sends events at a steady rate, in small bursts, each event with the time at which it left."""

from __future__ import annotations

import threading
import time

import msgspec

from benchmarks.harness import job, say, when_stopped
from benchmarks.workload import Source
from tailrace.streams.log.url import open_log

BURST_S = 0.002


class Job(msgspec.Struct, frozen=True):
    """How fast (events/s) and how long (0: until told to stop)."""

    url: str
    topic: str
    rate: float
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """What was sent; `behind`: by how much the last burst was late, seconds."""

    sent: int
    behind: float


def run(job: Job, stop: threading.Event) -> Report:
    """Send until it is time to end."""
    log = open_log(job.url, {"linger.ms": "1"} if job.url.startswith("kafka") else None)
    source, writer = Source(job.topic), log.writer()
    started, sent = time.monotonic(), 0
    due = started
    while not stop.is_set() and (not job.seconds or due - started < job.seconds):
        due += BURST_S
        time.sleep(max(0.0, due - time.monotonic()))
        burst = int((due - started) * job.rate) - sent
        writer.write(source.take(burst, time.time()))
        sent += burst
    behind = time.monotonic() - due
    writer.commit()
    writer.flush()
    writer.close()
    log.close()
    return Report(sent, behind)


def main() -> None:
    """Run the job given on the command line and tell what happened."""
    say(run(job(Job), when_stopped()))


if __name__ == "__main__":
    main()
