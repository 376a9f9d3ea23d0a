"""Process that freezes in the middle of a transaction: python freeze_child.py BOOTSTRAP TOPIC WRITER.

It writes one record, prints "open" and stops itself (SIGSTOP). Continued, it commits and prints the name of the error.
"""

from __future__ import annotations

import os
import signal
import sys

import structlog

from tailrace.streams.log.base import Delivery, LogError
from tailrace.streams.log.kafka.log import KafkaLog
from tailrace.streams.log.kafka.writer import KafkaWriter
from tailrace.streams.log.records import Out


def main(bootstrap: str, topic: str, name: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the results
    writer = KafkaLog(bootstrap).writer(name, Delivery.EXACTLY_ONCE)
    assert isinstance(writer, KafkaWriter)
    writer.write([Out(topic, None, b"frozen", partition=0)])
    writer._producer.flush()  # the transaction is open on the broker
    print("open", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        writer.write([Out(topic, None, b"late", partition=0)])
        writer.commit()
        writer.flush()
        print("committed", flush=True)
    except LogError as error:
        print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
