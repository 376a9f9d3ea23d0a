"""Child process that sends events at a steady rate in small bursts; the event time is the time of sending."""

from __future__ import annotations

import threading
import time

import msgspec

from benchmarks.harness import job, say, when_stopped
from benchmarks.workload import Source
from tailrace.streams.log.url import open_log

BURST_S = 0.002


class Job(msgspec.Struct, frozen=True):
    """Rate in events/s and length in seconds (0: until the parent stops it)."""

    url: str
    topic: str
    rate: float
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """Number of events sent; `behind`: delay of the last burst in seconds."""

    sent: int
    behind: float


def run(job: Job, stop: threading.Event) -> Report:
    """Send until the time is over or `stop` is set."""
    log = open_log(job.url, {"linger.ms": "1"} if job.url.startswith("kafka") else None)
    source, writer = Source(job.topic), log.writer()
    started, sent = time.monotonic(), 0
    next_burst = started
    while not stop.is_set() and (not job.seconds or next_burst - started < job.seconds):
        next_burst += BURST_S
        time.sleep(max(0.0, next_burst - time.monotonic()))
        burst = int((next_burst - started) * job.rate) - sent
        writer.write(source.take(burst, time.time()))
        sent += burst
    behind = time.monotonic() - next_burst
    writer.commit()
    writer.flush()
    writer.close()
    log.close()
    return Report(sent, behind)


def main() -> None:
    """Run the job given on the command line and report the result to the parent."""
    say(run(job(Job), when_stopped()))


if __name__ == "__main__":
    main()
