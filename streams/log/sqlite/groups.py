"""Groups of the embedded log: members, and their leases on partition numbers.

A lease is on a partition number of all the group's topics, so one member holds partition N of each topic. Rules:

    A lease lives as long as its member's row. A row is removed when its member leaves, when its last heartbeat is
    older than `session_timeout` (by the first member that notices), or when a member of the same instance takes its
    place (static membership, KIP-345). A member without its row has lost all its leases.
    The goal is a pure function of the members and leases, so that all members compute the same one without a leader.
    A member first releases the leases above its share, and takes only free ones (cooperative rebalancing, KIP-429).
    Every change that others must react to raises the group's generation, which readers check with each read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from tailrace.streams.log.base import Aborted, Fenced, LogError
from tailrace.streams.log.sqlite.file import File


class Standing(NamedTuple):
    """Partition numbers that a member has leased (`held`), and those of them above its fair share (`surplus`).

    `expelled`: the member had lost all leases that it held before.
    """

    held: frozenset[int]
    surplus: frozenset[int]
    expelled: bool


def fair_share(count: int, leases: Mapping[int, int], members: Collection[int]) -> dict[int, list[int]]:
    """Return the partition numbers that each member should hold now: those kept up to its quota, then free ones.

    The quotas of the `count` partitions are even to within one. A member below its quota gets the rest when the others
    have released their surplus, so as few partitions as possible move. `leases`: partition number -> member.
    """
    held = {member: sorted(n for n, holder in leases.items() if holder == member) for member in members}
    free = [number for number in range(count) if number not in leases]
    share, extra = divmod(count, len(held))
    goal: dict[int, list[int]] = {}
    for rank, member in enumerate(sorted(held, key=lambda member: (-len(held[member]), member))):
        quota = share + (rank < extra)
        kept = held[member][:quota]
        taken = free[: quota - len(kept)]
        del free[: len(taken)]
        goal[member] = kept + taken
    return goal


class Membership:
    """Membership of one reader in its group. All times are unix seconds, passed in."""

    def __init__(
        self, file: File, group: str, topics: Iterable[str], count: int, instance: str, session_timeout: float
    ) -> None:
        self.group = group
        self._file = file
        self._topics = " ".join(sorted(topics))
        self._count = count
        self._instance = instance
        self._timeout = session_timeout
        self._member: int | None = None
        self._seen = 0.0
        self._generation = -1

    def due(self, now: float) -> bool:
        """Return True if it is time to call `settle`: to join the group, or to send a heartbeat."""
        return self._member is None or not 0 <= now - self._seen < self._timeout / 6

    def stale(self, db: sqlite3.Connection) -> bool:
        """Return True if the group has changed since `settle`. Ask in the snapshot in which records are read."""
        return self._generation != _generation(db, self.group)

    def settle(self, now: float) -> Standing:
        """Join the group or send a heartbeat, remove expired members, and take free leases of this member's share.

        Raises Fenced when a newer member of the same instance is there, LogError when others read other topics.
        """
        standing = self._file.write(lambda db: self._settle(db, now))
        self._seen = now
        return standing

    def release(self, numbers: Iterable[int]) -> None:
        """Release the leases on these partition numbers, so that other members of the group can take them."""
        member = self._member

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM lease WHERE member = ? AND number = ?", [(member, n) for n in numbers])
            self._announce(db)

        self._file.write(work)

    def claim(self, numbers: set[int]) -> Callable[[sqlite3.Connection, float], None]:
        """Return a check to run inside a writer's transaction, later and in another thread.

        It raises Aborted unless the present member still holds all these numbers, and sends a heartbeat if one is due.
        """
        member = self._member  # a reader that was expelled and has joined again is another member

        def confirm(db: sqlite3.Connection, now: float) -> None:
            held = {n for (n,) in db.execute("SELECT number FROM lease WHERE member = ?", (member,))}
            if not numbers <= held:
                gone = sorted(numbers - held)
                raise Aborted(f"group {self.group!r}: partitions {gone} belong to another reader; read on")
            if self.due(now):
                db.execute("UPDATE member SET seen = ? WHERE id = ?", (now, member))
                self._seen = now

        return confirm

    def leave(self) -> None:
        """Leave the group and release all leases; no effect on a reader that is not a member."""
        if self._member is not None:
            self._file.write(lambda db: self._remove(db, "id = ?", self._member))
            self._member = None

    def _settle(self, db: sqlite3.Connection, now: float) -> Standing:
        beat = db.execute("UPDATE member SET seen = ? WHERE id = ?", (now, self._member)).rowcount
        self._remove(db, "consumers = ? AND seen < ?", self.group, now - self._timeout)
        expelled = not beat and self._member is not None
        if not beat:
            self._join(db, now)
        leases = dict(db.execute("SELECT number, member FROM lease WHERE consumers = ?", (self.group,)))
        members = [id for (id,) in db.execute("SELECT id FROM member WHERE consumers = ?", (self.group,))]
        assert self._member is not None
        goal = frozenset(fair_share(self._count, leases, members)[self._member])
        mine = frozenset(number for number, member in leases.items() if member == self._member)
        taken = [(self.group, number, self._member) for number in goal - mine]
        db.executemany("INSERT INTO lease (consumers, number, member) VALUES (?, ?, ?)", taken)
        self._generation = _generation(db, self.group)
        return Standing(held=mine | goal, surplus=mine - goal, expelled=expelled)

    def _join(self, db: sqlite3.Connection, now: float) -> None:
        others = db.execute("SELECT id, instance, topics FROM member WHERE consumers = ?", (self.group,)).fetchall()
        for _, _, topics in others:
            if topics != self._topics:
                raise LogError(f"group {self.group!r} reads {topics}, not {self._topics}: use another group name")
        same = [id for id, instance, _ in others if instance and instance == self._instance]
        if same and self._member is not None:
            raise Fenced(f"group {self.group!r}: a newer reader is {self._instance!r} now; this one must end")
        query = "INSERT INTO member (consumers, instance, topics, seen) VALUES (?, ?, ?, ?) RETURNING id"
        row = db.execute(query, (self.group, self._instance, self._topics, now)).fetchone()
        for predecessor in same:
            db.execute("UPDATE lease SET member = ? WHERE member = ?", (row[0], predecessor))
            self._remove(db, "id = ?", predecessor)
        self._member = row[0]
        self._announce(db)

    def _remove(self, db: sqlite3.Connection, condition: str, *values: object) -> None:
        if db.execute(f"DELETE FROM member WHERE {condition}", values).rowcount:  # noqa: S608 (fixed texts of this class)
            self._announce(db)

    def _announce(self, db: sqlite3.Connection) -> None:
        query = "INSERT INTO consumers VALUES (?, 0) ON CONFLICT DO UPDATE SET generation = generation + 1"
        db.execute(query, (self.group,))


def _generation(db: sqlite3.Connection, group: str) -> int:
    generation: int = db.execute("SELECT generation FROM consumers WHERE name = ?", (group,)).fetchone()[0]
    return generation
