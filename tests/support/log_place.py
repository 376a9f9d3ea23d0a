"""Helpers for tests of logs: short operations on any log, and a minimal exactly-once step."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from support.waiting import PATIENCE_S

from tailrace.streams.log.base import Aborted, Committed, Delivery, Log, Reader, Sharing, Topic, TopicPartition
from tailrace.streams.log.records import Out, Record

C = TypeVar("C")


@dataclass
class Place:
    """A log under test with unique names; everything registered by `kept` is closed with it."""

    url: str
    log: Log
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])
    stack: ExitStack = field(default_factory=ExitStack)

    def topic(self, name: str = "events", partitions: int = 1, **options: object) -> str:
        """Create a topic and return its full name."""
        full = f"{self.prefix}.{name}"
        self.log.create([Topic(full, partitions, **options)])  # type: ignore[arg-type]
        return full

    def group(self, name: str = "group") -> str:
        """Return a group name unique to this test."""
        return f"{self.prefix}-{name}"

    def kept(self, closable: C) -> C:
        """Close an object when the test ends."""
        self.stack.callback(closable.close)  # type: ignore[attr-defined]
        return closable

    def put(self, topic: str, values: Iterable[bytes], partition: int | None = None) -> None:
        """Write these values durably, each with itself as key."""
        writer = self.log.writer()
        writer.write([Out(topic, value, value, partition=partition) for value in values])
        writer.commit()
        writer.flush()
        writer.close()

    def values(self, topic: str) -> Counter[bytes | None]:
        """Count every committed value of a topic."""
        begin, end = self.log.begin_positions(topic), self.log.end_positions(topic)
        return Counter(r.value for at in end for batch in self.log.scan(at, begin[at], end[at]) for r in batch)


class RecordingListener:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, frozenset[TopicPartition]]] = []
        self.committed: dict[TopicPartition, Committed | None] = {}

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self.calls.append(("assigned", frozenset(committed)))
        self.committed.update(committed)

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        self.calls.append(("revoking", partitions))

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self.calls.append(("lost", partitions))

    def heard(self, word: str) -> bool:
        return any(word == call for call, _ in self.calls)


class Copier:
    """Minimal exactly-once step: copies a topic into another; goes back to the committed positions after Aborted."""

    def __init__(self, log: Log, source: str, sink: str, group: str, name: str, size: int = 20) -> None:
        self.listener, self._sink, self._size = RecordingListener(), sink, size
        self.reader = log.reader([source], group=group, instance=name, sharing=Sharing.SPREAD, listener=self.listener)
        self.writer = log.writer(name, Delivery.EXACTLY_ONCE)

    def step(self, timeout: float = 0.05) -> None:
        batch = self.reader.read(self._size, timeout)
        if not batch.records:
            return
        try:
            self.writer.write([Out(self._sink, record.key, record.value) for record in batch.records])
            self.writer.commit(after(batch.records), self.reader)
            self.writer.flush()
        except Aborted:
            self.writer.abort()
            self.reader.rewind()

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


@contextmanager
def child(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a script of this directory; killed at the end of the block."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(here.parent)}
    command = [sys.executable, str(here / script), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def after(records: Sequence[Record], metadata: str = "") -> dict[TopicPartition, Committed]:
    """Return the positions behind these records."""
    return {TopicPartition(r.topic, r.partition): Committed(r.offset + 1, metadata) for r in records}


def drain(reader: Reader, count: int, size: int = 500) -> list[Record]:
    """Read until `count` records have come."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(records) < count and time.monotonic() < deadline:
        records += reader.read(size, 0.5).records
    assert len(records) == count
    return records


def until(condition: Callable[[], bool], *steps: Callable[[], object]) -> None:
    """Call the steps in turn until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        for step in steps:
            step()
        if not steps:
            time.sleep(0.002)


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Return distinct values."""
    return [b"%06d" % number for number in range(start, start + count)]
