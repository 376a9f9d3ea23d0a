"""Who reads what: the members of a group and their leases on partition numbers (embedded log).

The unit is the partition number across all of a group's topics, so partition N of each is always in one hand. Rules:

    A lease lives as long as its member's row. A row goes when its member leaves, when it was not seen for
    `session_timeout` (whoever else notices first removes it), or when a member of the same instance takes its place
    (static membership, KIP-345). Who finds its row gone has lost everything it held.
    The goal is a pure function of the members and leases, so that all members see the same one without a leader. A
    member first lets go of what is above its share, and takes only what is free (cooperative rebalancing, KIP-429).
    Every change that others must react to raises the group's generation, which readers look at with each read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from tailrace.streams.log.base import Aborted, Fenced, LogError
from tailrace.streams.log.sqlite.file import File


class Standing(NamedTuple):
    """What a member holds after a look at its group, what of it is above its share, whether it had lost everything."""

    held: frozenset[int]
    surplus: frozenset[int]
    expelled: bool


def fair_share(count: int, leases: Mapping[int, int], members: Collection[int]) -> dict[int, list[int]]:
    """Which of `count` partition numbers each member should hold: even to within one, and moving as few as possible."""
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
    """One reader's place in its group. All times are unix seconds, passed in."""

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
        """Is it time for `settle`: not a member yet, or a heartbeat is due?"""
        return self._member is None or not 0 <= now - self._seen < self._timeout / 6

    def stale(self, db: sqlite3.Connection) -> bool:
        """Has the group changed since the last `settle`? To be asked in the snapshot in which records are read."""
        return self._generation != _generation(db, self.group)

    def settle(self, now: float) -> Standing:
        """Join, or show a sign of life; remove members that are gone; take what is free and due.

        Raises Fenced when a newer member of the same instance is there, LogError when others read other topics.
        """
        standing = self._file.write(lambda db: self._settle(db, now))
        self._seen = now
        return standing

    def release(self, numbers: Iterable[int]) -> None:
        """Let go of these numbers, for others to take."""
        member = self._member

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM lease WHERE member = ? AND number = ?", [(member, n) for n in numbers])
            self._announce(db)

        self._file.write(work)

    def claim(self, numbers: set[int]) -> Callable[[sqlite3.Connection, float], None]:
        """A check for inside a writer's transaction, which may come later and in another thread: it raises Aborted
        unless all of these numbers are still held by the member that this is now, and beats if that is due."""
        member = self._member  # a reader that was expelled and has joined anew is another member

        def confirm(db: sqlite3.Connection, now: float) -> None:
            held = {n for (n,) in db.execute("SELECT number FROM lease WHERE member = ?", (member,))}
            if not numbers <= held:
                gone = sorted(numbers - held)
                raise Aborted(f"group {self.group!r}: partitions {gone} belong to another reader by now; read on")
            if self.due(now):
                db.execute("UPDATE member SET seen = ? WHERE id = ?", (now, member))
                self._seen = now

        return confirm

    def leave(self) -> None:
        """Give everything back at once."""
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
