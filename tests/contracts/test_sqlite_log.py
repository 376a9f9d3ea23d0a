"""Behaviour of the embedded log alone: one file, many processes, leases, retention and compaction."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.log_place import Copier, Place, RecordingListener, after, child, drain, numbered, until
from support.waiting import PATIENCE_S

from tailrace.streams.log.base import (
    Aborted,
    Delivery,
    Fenced,
    LogError,
    Sharing,
    Topic,
    TopicMissing,
    TopicPartition,
    Unreachable,
)
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.file import File
from tailrace.streams.log.sqlite.groups import fair_share
from tailrace.streams.log.sqlite.log import SqliteLog

SESSION = 0.3  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh embedded log with a short session time-out."""
    path = tmp_path / "log.db"
    place = Place(f"sqlite:///{path}", SqliteLog(path, session_timeout=SESSION))
    with place.stack:
        place.kept(place.log)
        yield place


# ---- the file


def test_many_processes_create_and_write(tmp_path: Path) -> None:
    """Processes that create one file and write to it concurrently all succeed, and none waits for long."""
    with ExitStack() as stack:
        arguments = ("write_child.py", str(tmp_path / "log.db"), "events", "150")
        processes = [stack.enter_context(child(*arguments)) for _ in range(5)]
        answers = [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert max(float(answer) for answer in answers) < 10
    place = Place("", SqliteLog(tmp_path / "log.db"))
    values = place.values("events")
    assert values.total() == len(values) == 5 * 150 * 10
    assert sum(place.log.end_positions("events").values()) == 5 * 150 * 10
    place.log.close()


def test_log_created_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a log succeeds while another process creates it."""
    path, look = tmp_path / "log.db", File._pragma
    other = threading.Thread(target=lambda: SqliteLog(path).close())

    def create_after(self: File, text: str) -> int:
        found = look(self, text)
        if not other.ident:
            other.start()
            other.join(0.5)  # not for longer: it has to wait for us where our looks are one
        return found

    monkeypatch.setattr(File, "_pragma", create_after)
    log = SqliteLog(path)
    other.join()
    log.create([Topic("events", 2)])
    assert log.partitions("events") == 2
    log.close()


def test_missing_directory(tmp_path: Path) -> None:
    """A missing directory raises Unreachable, and the message names the fix."""
    with pytest.raises(Unreachable, match="create the directory"):
        SqliteLog(tmp_path / "nowhere" / "log.db")


@pytest.mark.parametrize("kind", ["text", "database", "version"])
def test_wrong_file_is_refused_untouched(tmp_path: Path, kind: str) -> None:
    """A file of another kind or format raises LogError and stays unchanged."""
    path = tmp_path / "other.db"
    if kind == "text":
        path.write_text("hello " * 1000)
    elif kind == "database":
        _execute(path, "CREATE TABLE mine (x)")
    else:
        SqliteLog(path).close()
        _execute(path, "PRAGMA user_version=99")
    before = path.read_bytes()
    with pytest.raises(LogError, match="use another file"):
        SqliteLog(path)
    assert path.read_bytes() == before


def test_lock_held_by_another_delays_only(place: Place) -> None:
    """A commit waits while another process holds the file's lock; readers continue."""
    topic = place.topic()
    place.put(topic, [b"before"])
    with _locked(place):
        thread = threading.Thread(target=place.put, args=(topic, [b"after"]))
        thread.start()
        assert place.values(topic) == Counter([b"before"])
    thread.join()
    assert place.values(topic) == Counter([b"before", b"after"])


def test_threads_share_a_log(place: Place) -> None:
    """Several threads can use one log at once."""
    topic = place.topic()
    place.put(topic, numbered(2_000))
    found: list[Counter[bytes | None]] = []
    threads = [threading.Thread(target=lambda: found.append(place.values(topic))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Counter(numbered(2_000))] * 4


# ---- leases


def test_silent_reader_loses_its_leases(place: Place) -> None:
    """A reader without heartbeats is replaced; its commit is void, its listener hears of it, and it joins again."""
    topic = place.topic(partitions=2)
    place.put(topic, numbered(10))
    listener = RecordingListener()
    silent = place.kept(place.log.reader([topic], group=place.group(), listener=listener))
    records = drain(silent, 10)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    writer.write([Out(topic, b"k", b"void")])
    other = place.kept(place.log.reader([topic], group=place.group()))
    until(lambda: len(other.assignment) == 2, lambda: other.read(1, 0.02))
    writer.commit(after(records), silent)
    with pytest.raises(Aborted, match="another reader"):
        writer.flush()
    assert place.values(topic) == Counter(numbered(10))
    silent.read(10, 0)
    assert listener.heard("lost")
    until(
        lambda: len(silent.assignment) == len(other.assignment) == 1,
        lambda: silent.read(1, 0.01),
        lambda: other.read(1, 0.01),
    )


def test_commit_belongs_to_the_member_that_began_it(place: Place) -> None:
    """A commit that waits for the file's lock is void if its reader is expelled meanwhile, even if it joins again."""
    topic = place.topic()
    place.put(topic, numbered(10))
    reader = place.kept(place.log.reader([topic], group=place.group()))
    records = drain(reader, 10)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    writer.write([Out(topic, b"k", b"void")])
    with _locked(place) as db:
        writer.commit(after(records), reader)
        db.execute("UPDATE lease SET member = member + 1")  # as if it had been expelled and had come back
        db.execute("UPDATE member SET id = id + 1")
        reader._membership._member += 1  # type: ignore[attr-defined]
        assert writer.committing
    with pytest.raises(Aborted, match="another reader"):
        writer.flush()
    assert place.values(topic) == Counter(numbered(10))


def test_positions_never_get_ahead_of_records(place: Place) -> None:
    """After a commit failed in the background the next one is Aborted too, unless `abort` was called."""
    topic = place.topic()
    older = place.kept(place.log.writer("name", Delivery.EXACTLY_ONCE))
    older.write([Out(topic, b"k", b"lost")])
    place.kept(place.log.writer("name", Delivery.EXACTLY_ONCE))
    older.commit()
    with pytest.raises(Fenced):
        older.flush()
    older.write([Out(topic, b"k", b"later")])
    with pytest.raises(Aborted):
        older.commit()
    older.abort()
    older.commit()
    assert place.values(topic) == Counter()


def test_refused_writer_holds_no_file(place: Place) -> None:
    """An exactly-once writer without a name is refused before anything is opened."""
    with pytest.raises(ValueError, match="needs a name"):
        place.log.writer("", Delivery.EXACTLY_ONCE)


def test_stopped_process_is_fenced(place: Place) -> None:
    """A process stopped (SIGSTOP) beyond the session time-out and continued later loses and duplicates nothing."""
    source, sink = place.topic("source", 4), place.topic("sink", 4)
    arguments = (place.url.replace("///", "////", 1), source, sink, place.group(), "first", str(SESSION))
    with child("copy_child.py", *arguments) as process:
        place.put(source, numbered(500))
        until(lambda: place.values(sink).total() == 500)
        process.send_signal(signal.SIGSTOP)
        place.put(source, numbered(500, start=500))
        second = place.kept(Copier(place.log, source, sink, place.group(), "second"))
        until(lambda: place.values(sink).total() == 1_000, second.step)
        assert len(second.reader.assignment) == 4
        process.send_signal(signal.SIGCONT)
        until(lambda: len(second.reader.assignment) == 2, second.step)
        place.put(source, numbered(500, start=1_000))
        until(lambda: place.values(sink).total() == 1_500, second.step)
        process.terminate()
        assert "lost" in process.communicate(timeout=PATIENCE_S)[0].split()
    assert place.values(sink) == Counter(numbered(1_500))


def test_same_instance_takes_over_at_once(tmp_path: Path) -> None:
    """A reader of the same instance takes its predecessor's partitions at once; the predecessor raises Fenced."""
    place = Place("", SqliteLog(tmp_path / "log.db", session_timeout=60))
    with place.stack:
        place.kept(place.log)
        topic, listener = place.topic(partitions=3), RecordingListener()
        place.put(topic, numbered(9))
        old = place.kept(place.log.reader([topic], group="g", instance="i", listener=listener))
        records = drain(old, 9)
        new = place.kept(place.log.reader([topic], group="g", instance="i"))
        assert len(drain(new, 9)) == 9
        assert len(new.assignment) == 3
        writer = place.kept(place.log.writer("w", Delivery.EXACTLY_ONCE))
        writer.commit(after(records), old)
        with pytest.raises(Aborted):
            writer.flush()
        with pytest.raises(Fenced, match="newer reader"):
            old.read(1, 0)
        assert listener.heard("lost")
        assert old.assignment == frozenset()


def test_members_read_the_same_topics(place: Place) -> None:
    """A reader of other topics is refused by a group, and TOGETHER refuses topics that do not match."""
    one, two = place.topic("one", 1), place.topic("two", 2)
    place.kept(place.log.reader([one], group=place.group())).read(1, 0)
    with pytest.raises(LogError, match="another group name"):
        place.kept(place.log.reader([two], group=place.group())).read(1, 0)
    with pytest.raises(TopicMissing, match="same number of partitions"):
        place.log.reader([one, two], group=place.group(), sharing=Sharing.TOGETHER)


def test_waiting_reader_is_woken(place: Place) -> None:
    """A waiting reader returns a record soon after its commit, not at the end of the time-out."""
    topic = place.topic()
    reader = place.kept(place.log.reader([topic]))
    thread = threading.Timer(0.05, place.put, args=(topic, [b"v"]))
    started = time.monotonic()
    thread.start()
    assert [r.value for r in reader.read(1, 20).records] == [b"v"]
    assert time.monotonic() - started < 10
    thread.join()


@given(
    count=st.integers(1, 40),
    members=st.sets(st.integers(1, 9), min_size=1),
    holders=st.lists(st.none() | st.integers(1, 9), min_size=40, max_size=40),
)
def test_fair_share(count: int, members: set[int], holders: list[int | None]) -> None:
    """Shares never overlap and keep partitions where possible; finally they are even and cover all."""
    leases = {n: h for n, h in enumerate(holders[:count]) if h in members}
    goal = fair_share(count, leases, members)
    given_out = [number for numbers in goal.values() for number in numbers]
    assert len(given_out) == len(set(given_out))
    for member, numbers in goal.items():
        held = {n for n, holder in leases.items() if holder == member}
        assert len(numbers) <= -(-count // len(members))
        assert held <= set(numbers) or set(numbers) < held
        assert len(numbers) >= min(len(held), count // len(members))
    settled = {number: member for member, numbers in goal.items() for number in numbers}
    final = fair_share(count, settled, members)
    assert sorted(number for numbers in final.values() for number in numbers) == list(range(count))
    assert max(map(len, final.values())) - min(map(len, final.values())) <= 1


# ---- cleaning


def test_compaction_removes_what_is_superseded(place: Place) -> None:
    """Compaction removes old records of a key and old tombstones; the newest keeps its offset, and the end stays."""
    topic = place.topic(compacted=True)
    at = TopicPartition(topic, 0)
    writer = place.kept(place.log.writer())
    writer.write([Out(topic, b"gone", b"v"), Out(topic, b"gone", None, timestamp=1), Out(topic, None, b"no key")])
    for turn in range(400):
        writer.write([Out(topic, b"%d" % (turn % 5), b"%d" % turn)])
        _let_a_second_pass(writer)
    records = [record for batch in place.log.scan(at, 0, 403) for record in batch]
    assert len(records) < 150
    assert {r.key: r.value for r in records} == {None: b"no key"} | {b"%d" % k: b"%d" % (395 + k) for k in range(5)}
    assert records[-1].offset == 402
    assert place.log.end_positions(topic) == {at: 403}
    assert len(drain(place.kept(place.log.reader([topic])), len(records), size=7)) == len(records)


def test_what_weighs_much_is_removed_soon(place: Place) -> None:
    """Large superseded values are removed although many tombstones stay for an hour."""
    topic = place.topic(compacted=True)
    at = TopicPartition(topic, 0)
    writer = place.kept(place.log.writer())
    writer.write([Out(topic, b"%d" % n, None) for n in range(5_000)])
    for _ in range(100):
        writer.write([Out(topic, b"large", bytes(1_000_000))])
        _let_a_second_pass(writer)
    records = [record for batch in place.log.scan(at, 0, 5_100) for record in batch]
    assert sum(record.value is None for record in records) == 5_000
    assert sum(len(record.value or b"") for record in records) < 70_000_000


def test_retention_removes_the_old(place: Place) -> None:
    """Retention removes whole old blocks from the head; the end stays, and reading continues."""
    topic = place.topic(retention_s=60)
    at, old = TopicPartition(topic, 0), round((time.time() - 3600) * 1000)
    writer = place.kept(place.log.writer())
    for _ in range(3):
        writer.write([Out(topic, b"k", b"old", timestamp=old) for _ in range(1024)])
    writer.write([Out(topic, b"k", b"new")])
    _let_a_second_pass(writer)
    writer.write([Out(topic, b"k", b"new")])
    assert place.log.begin_positions(topic) == {at: 3072}
    assert place.log.end_positions(topic) == {at: 3074}
    reader = place.kept(place.log.reader([topic]))
    assert [r.offset for r in drain(reader, 2)] == [3072, 3073]


@contextmanager
def _locked(place: Place) -> Iterator[sqlite3.Connection]:
    """Hold the file's lock as another process would; its changes are kept."""
    holder = sqlite3.connect(place.url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield holder
    holder.execute("COMMIT")
    holder.close()


def _let_a_second_pass(writer: object) -> None:
    """Wait until the writer checks its partitions again, which it does once a second."""
    for mark in writer._cleaner._marks.values():  # type: ignore[attr-defined]
        mark.checked = 0.0


def _execute(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
