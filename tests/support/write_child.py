"""Process that writes records: python write_child.py PATH TOPIC COMMITS; prints its longest commit in seconds.

It creates the log and the topic if necessary, and writes ten records in each commit.
"""

from __future__ import annotations

import os
import sys
import time

from tailrace.streams.log.base import Delivery, Topic
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog


def main(path: str, topic: str, commits: str) -> None:
    log = SqliteLog(path)
    log.create([Topic(topic, 4)])
    writer = log.writer(f"writer-{os.getpid()}", Delivery.EXACTLY_ONCE)
    longest = 0.0
    for turn in range(int(commits)):
        writer.write([Out(topic, b"%d" % n, b"%d/%d/%d" % (os.getpid(), turn, n)) for n in range(10)])
        started = time.monotonic()
        writer.commit()
        longest = max(longest, time.monotonic() - started)
    print(longest)


if __name__ == "__main__":
    main(*sys.argv[1:])
