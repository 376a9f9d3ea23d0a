"""Reader of the embedded log, and the queries that it shares with the log."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from tailrace.streams.log.base import Batch, Committed, Fenced, Positions, Subscription, TopicPartition
from tailrace.streams.log.records import Headers, Record
from tailrace.streams.log.sqlite.file import OFFSET_BITS, OFFSET_MASK, File
from tailrace.streams.log.sqlite.groups import Membership
from tailrace.streams.log.sqlite.topics import TopicRow

_SHORTEST_SLEEP_S, _LONGEST_SLEEP_S = 0.0005, 0.010  # seconds between two checks of an idle log

_headers = msgspec.msgpack.Decoder(Headers)


class SqliteReader:
    """Implements `log.base.Reader`. Made by `SqliteLog`.

    With a `membership` its partitions come and go, without one it holds all of them. Heartbeats are sent by `read` and
    by commits for this reader, so a step longer than the session time-out loses the partitions.
    """

    def __init__(
        self,
        file: File,
        topics: Iterable[TopicRow],
        subscription: Subscription,
        membership: Membership | None,
    ) -> None:
        self.group = subscription.group
        self._file = file
        self._topics = {topic.name: topic for topic in topics}
        self._membership = membership
        self._listener = subscription.listener
        self._positions: dict[TopicPartition, int] = {}
        self._announced = membership is not None
        self._turn = 0
        self._last_record = time.monotonic()
        if membership is None:
            everything = self._partitions(range(max(len(topic.partitions) for topic in self._topics.values())))
            self._positions = _offsets(self._committed(everything)) | dict(subscription.start)

    def read(self, max_records: int, timeout: float) -> Batch:
        """See `log.base.Reader.read`. Raises Fenced when a newer reader of the same instance has joined the group."""
        deadline = time.monotonic() + timeout
        while True:
            version = self._file.version()  # before reading, so that no commit is missed
            batch = self._read_once(max_records)
            now = time.monotonic()
            if batch.records:
                self._last_record = now
            if batch.records or now >= deadline:
                return batch
            self._sleep(version, deadline)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """See `log.base.Reader.assignment`."""
        return frozenset(self._positions)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `log.base.Reader.seek`."""
        self._positions.update({at: offset for at, offset in positions.items() if at in self._positions})

    def rewind(self) -> dict[TopicPartition, Committed | None]:
        """See `log.base.Reader.rewind`."""
        committed = self._committed(self._positions)
        self._positions = _offsets(committed)
        return committed

    def close(self) -> None:
        """See `log.base.Reader.close`."""
        self._positions = {}
        try:
            if self._membership:
                self._membership.leave()
        finally:
            self._file.close()

    def claim(self, positions: Positions) -> Callable[[sqlite3.Connection], None]:
        """Return a check to run inside a writer's transaction.

        It raises Aborted unless this reader has held all these partitions from now until then.
        """
        if self._membership is None:
            return lambda db: None
        confirm = self._membership.claim({partition.partition for partition in positions})
        return lambda db: confirm(db, time.time())

    def _read_once(self, max_records: int) -> Batch:
        if not self._announced:
            self._announced = True
            self._announce(self._committed(self._positions))
        if self._membership and self._membership.due(time.time()):
            self._settle(self._membership)
        while (batch := self._file.read(lambda db: self._take(db, max_records))) is None:
            assert self._membership is not None
            self._settle(self._membership)
        return batch

    def _settle(self, membership: Membership) -> None:
        """Renew the leases, take and release partitions, and call the listener for each change."""
        try:
            standing = membership.settle(time.time())
        except Fenced:
            self._lose()
            raise
        if standing.expelled:
            self._lose()
        gained = self._partitions(standing.held) - self.assignment
        if gained:
            committed = self._committed(gained)
            self._positions |= _offsets(committed)
            self._announce(committed)
        if standing.surplus:
            leaving = self._partitions(standing.surplus)
            if self._listener:
                self._listener.revoking(leaving)
            membership.release(standing.surplus)
            self._forget(leaving)

    def _lose(self) -> None:
        lost = self.assignment
        self._forget(lost)
        if lost and self._listener:
            self._listener.lost(lost)

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)

    def _announce(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        if self._listener:
            self._listener.assigned(committed)

    def _partitions(self, numbers: Iterable[int]) -> frozenset[TopicPartition]:
        return frozenset(
            TopicPartition(topic.name, number)
            for number in numbers
            for topic in self._topics.values()
            if number < len(topic.partitions)
        )

    def _committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        group, topics = self.group, self._topics.values()
        stored = self._file.read(lambda db: committed_positions(db, group, topics)) if group else {}
        return {partition: stored.get(partition) for partition in partitions}

    def _take(self, db: sqlite3.Connection, max_records: int) -> Batch | None:
        """Read an equal share of each partition with unread records, in one snapshot. None: the group has changed."""
        if self._membership and self._membership.stale(db):
            return None
        ends = {at: end for topic in self._topics.values() for at, end in end_positions(db, topic).items()}
        ready = [at for at, position in self._positions.items() if position < ends[at]]
        self._turn += 1
        turn = self._turn % len(ready) if ready else 0
        records: list[Record] = []
        positions: dict[TopicPartition, int] = {}
        for waiting, at in zip(range(len(ready), 0, -1), ready[turn:] + ready[:turn], strict=True):
            share = max((max_records - len(records)) // waiting, 1)
            if len(records) + share > max_records:
                break
            row = self._topics[at.topic].partitions[at.partition]
            part = select_records(db, at, row, self._positions[at], ends[at], share)
            positions[at] = part[-1].offset + 1 if len(part) == share else ends[at]
            records += part
        self._positions |= positions
        return Batch(records, {at: position for at, position in self._positions.items() if position >= ends[at]})

    def _sleep(self, version: int, deadline: float) -> None:
        """Sleep until a commit, the next heartbeat or the deadline.

        A check costs a few microseconds. Each sleep lasts a tenth of the time already waited, so it adds at most a
        tenth to the latency.
        """
        while (now := time.monotonic()) < deadline:
            pause = min(max((now - self._last_record) / 10, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)
            time.sleep(min(pause, deadline - now))
            due = self._membership is not None and self._membership.due(time.time())
            if due or self._file.version() != version:
                return


def select_records(
    db: sqlite3.Connection, at: TopicPartition, row: int, start: int, end: int, limit: int
) -> list[Record]:
    """Return the records of one partition (row id `row`) with start <= offset < end, at most `limit`."""
    topic, number = at
    base = row << OFFSET_BITS
    query = "SELECT id, timestamp, key, value, headers FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    return [
        Record(topic, number, id & OFFSET_MASK, timestamp, key, value, _headers.decode(headers) if headers else ())
        for id, timestamp, key, value, headers in db.execute(query, (base | start, base | end, limit)).fetchall()
    ]


def end_positions(db: sqlite3.Connection, topic: TopicRow) -> dict[TopicPartition, int]:
    """Return the position behind the newest record of each partition."""
    rows = db.execute("SELECT number, next FROM partition WHERE topic = ?", (topic.id,)).fetchall()
    return {TopicPartition(topic.name, number): end for number, end in rows}


def committed_positions(
    db: sqlite3.Connection, group: str, topics: Iterable[TopicRow]
) -> dict[TopicPartition, Committed]:
    """Return a group's committed positions on these topics."""
    query = (
        "SELECT number, position, metadata FROM committed JOIN partition ON partition = partition.id"
        " WHERE consumers = ? AND topic = ?"
    )
    return {
        TopicPartition(topic.name, number): Committed(position, metadata)
        for topic in topics
        for number, position, metadata in db.execute(query, (group, topic.id))
    }


def _offsets(committed: Mapping[TopicPartition, Committed | None]) -> dict[TopicPartition, int]:
    return {partition: at.offset if at else 0 for partition, at in committed.items()}
