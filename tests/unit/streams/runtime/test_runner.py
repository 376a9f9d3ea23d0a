"""The runner on the real embedded log: exactly once through rebalances, take-overs and stops."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, until

from tailrace.streams.log.base import Batch, Committed, Delivery, Fenced, Reader, Topic, TopicPartition
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.runtime.observer import Observer
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless

SESSION = 0.3  # seconds
PARTITIONS = 4


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """An embedded log with topics `source` and `sink`."""
    log = SqliteLog(tmp_path / "log.db", session_timeout=SESSION)
    log.create([Topic("source", PARTITIONS), Topic("sink", PARTITIONS), Topic("source.dlq")])
    yield log
    log.close()


@pytest.fixture
def patient_log(log: SqliteLog, tmp_path: Path) -> Iterator[SqliteLog]:
    """That log with sessions that outlast any stall of the machine."""
    patient = SqliteLog(tmp_path / "log.db", session_timeout=PATIENCE_S)
    yield patient
    patient.close()


def copy(batch: Batch) -> list[Out]:
    return [Out("sink", record.key, record.value, (), record.timestamp) for record in batch.records]


def config(instance: str = "a", **changes: object) -> RunnerConfig:
    given = {"topics": ("source",), "group": "copiers", "writer": f"copier-{instance}", "instance": instance}
    return RunnerConfig(**(given | {"commit_interval": 0.005} | changes))  # type: ignore[arg-type]


def put(log: SqliteLog, count: int, start: int = 0) -> None:
    writer = log.writer()
    values = [b"%d" % number for number in range(start, start + count)]
    writer.write([Out("source", value, value) for value in values])
    writer.commit()
    writer.close()


def found(log: SqliteLog, topic: str = "sink") -> Counter[bytes | None]:
    ends = log.end_positions(topic)
    return Counter(r.value for at, end in ends.items() for batch in log.scan(at, 0, end) for r in batch)


def once(count: int) -> Counter[bytes | None]:
    return Counter({b"%d" % number: 1 for number in range(count)})


def lag(log: SqliteLog) -> int:
    committed = log.committed("copiers", ["source"])
    return sum(end - committed.get(at, Committed(0)).offset for at, end in log.end_positions("source").items())


class Running:
    """A runner in a thread."""

    def __init__(self, runner: Runner) -> None:
        self.error: BaseException | None = None
        self._runner = runner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._runner.run(self._stop)
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the runner did not stop"


@contextmanager
def running(runner: Runner) -> Iterator[Running]:
    """Runs in a thread until the end of the block."""
    process = Running(runner)
    try:
        yield process
    finally:
        process.stop()


class Watcher(Observer):
    """Records the calls that it gets."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.read = self.written = 0
        self.letters: list[Malformed] = []

    def batch(self, read: int, written: int, seconds: float) -> None:
        self.counts["batch"] += 1
        self.read += read
        self.written += written

    def idle(self) -> None:
        self.counts["idle"] += 1

    def committed(self, seconds: float) -> None:
        self.counts["committed"] += 1

    def rebalanced(self, kind: str, partitions: int) -> None:
        self.counts[kind] += 1

    def aborted(self) -> None:
        self.counts["aborted"] += 1

    def set_aside(self, letter: Malformed) -> None:
        self.letters.append(letter)


@pytest.mark.parametrize("delivery", list(Delivery))
def test_everything_is_copied_once_and_in_order(log: SqliteLog, delivery: Delivery) -> None:
    """Without failures both modes deliver each record once, each partition in order, and commit behind the last."""
    put(log, 3_000)
    with running(Runner(log, Stateless(copy), config(delivery=delivery))):
        until(lambda: lag(log) == 0)
        put(log, 2_000, 3_000)
        until(lambda: lag(log) == 0)
    assert once(5_000) == found(log)
    for partition in range(PARTITIONS):
        at, sink = TopicPartition("source", partition), TopicPartition("sink", partition)
        values = [[r.value for b in log.scan(tp, 0, 9_999) for r in b] for tp in (at, sink)]
        assert values[0] == values[1]


def test_an_aborted_transaction_is_done_again(log: SqliteLog) -> None:
    """A reader that lost its partitions while it worked goes back: no record is lost or duplicated."""
    put(log, 500)
    working, go_on = threading.Event(), threading.Event()

    def slow_copy(batch: Batch) -> list[Out]:
        working.set()
        assert go_on.wait(PATIENCE_S)
        return copy(batch)

    watcher = Watcher()
    with running(Runner(log, Stateless(slow_copy), config("zombie"), observer=watcher)) as zombie:
        assert working.wait(PATIENCE_S)
        with running(Runner(log, Stateless(copy), config("heir"))):  # takes over when the lease has run out
            until(lambda: lag(log) == 0)
            assert once(500) == found(log)
            go_on.set()
            until(lambda: watcher.counts["aborted"] > 0)
            put(log, 500, 500)
            until(lambda: lag(log) == 0)
    assert zombie.error is None
    assert once(1_000) == found(log)
    assert watcher.counts["lost"] >= 1


def test_a_commit_that_fails_behind_an_idle_loop_is_done_again(log: SqliteLog, tmp_path: Path) -> None:
    """A background commit that fails without further input is noticed, and the work is done again."""
    put(log, 10)
    holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None, check_same_thread=False)
    watcher = Watcher()

    def copy_and_lose_the_leases(batch: Batch) -> list[Out]:
        if not watcher.counts["batch"]:
            holder.execute("BEGIN IMMEDIATE")
            holder.execute("DELETE FROM lease")
        return copy(batch)

    with running(Runner(log, Stateless(copy_and_lose_the_leases), config(), observer=watcher)):
        until(lambda: watcher.counts["committed"] > 0)
        holder.execute("COMMIT")
        until(lambda: lag(log) == 0)
    holder.close()
    assert once(10) == found(log)
    assert watcher.counts["aborted"] > 0


def test_what_was_lost_is_not_committed_by_a_rebalance(log: SqliteLog) -> None:
    """A reader that is expelled, joins again and must share before it went back still drops its written records."""
    put(log, 500)
    others: list[Reader] = []

    def join_group(instance: str) -> Reader:
        reader = log.reader(["source"], group="copiers", instance=instance)
        until(lambda: bool(reader.read(1, 0.01)) and len(reader.assignment) in (2, PARTITIONS))
        return reader

    class Suspended(Stateless):
        """A step with positions of its own, whose process is suspended longer than its session, once."""

        def __call__(self, batch: Batch) -> Sequence[Out]:
            out = super().__call__(batch)
            if out and not others:
                time.sleep(2 * SESSION)
                others.append(join_group("heir"))  # takes over
                others[0].close()
            return out

        def restore(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
            super().restore(committed)
            self._positions |= {tp: at.offset if at else 0 for tp, at in committed.items()}
            if len(others) == 1:  # joins while the one that comes back restores
                others.append(log.reader(["source"], group="copiers", instance="third"))
                others[1].read(1, 0.0)

    watcher = Watcher()
    runner = Runner(log, Suspended(copy), config(commit_interval=3_600.0), observer=watcher)
    runner._policy._last_commit = time.monotonic()  # no commit is due before it is suspended
    with running(runner) as process:
        until(lambda: watcher.counts["revoked"] > 0)
    others[1].close()
    assert process.error is None
    assert watcher.counts["lost"] > 0
    with running(Runner(log, Stateless(copy), config("healthy"))):
        until(lambda: lag(log) == 0)
    assert once(500) == found(log)


def test_a_newer_instance_of_the_same_name_ends_the_older(log: SqliteLog) -> None:
    """The older runner raises Fenced, and its open transaction leaves nothing behind."""
    put(log, 300)
    working, go_on = threading.Event(), threading.Event()

    def slow_copy(batch: Batch) -> list[Out]:
        working.set()
        assert go_on.wait(PATIENCE_S)
        return copy(batch)

    with running(Runner(log, Stateless(slow_copy), config())) as older:
        assert working.wait(PATIENCE_S)
        with running(Runner(log, Stateless(copy), config())) as newer:
            until(lambda: lag(log) == 0)
            go_on.set()
            until(older.ended)
            assert isinstance(older.error, Fenced)
        assert newer.error is None
    assert once(300) == found(log)


def test_a_restore_that_takes_longer_than_the_session_keeps_its_partitions(log: SqliteLog) -> None:
    """Slow work is not repeated if no other reader takes the partitions."""
    watcher, calls = Watcher(), Counter[str]()

    class Slow(Stateless):
        def restore(self, committed: object) -> None:
            calls["restored"] += 1
            time.sleep(2 * SESSION)  # as rebuilding a large state does

    with running(Runner(log, Slow(copy), config(), observer=watcher)):
        until(lambda: watcher.counts["idle"] >= 3)
        put(log, 50)
        until(lambda: lag(log) == 0)
    assert once(50) == found(log)
    assert (calls["restored"], watcher.counts["lost"]) == (1, 0)


def test_stop_finishes_what_was_begun(log: SqliteLog) -> None:
    """A batch read before the stop is written and committed before the commit interval has passed."""
    put(log, 200)
    taken = threading.Event()

    def noticed(batch: Batch) -> list[Out]:
        taken.set()
        return copy(batch)

    runner = Runner(log, Stateless(noticed), config(commit_interval=3_600.0))
    with running(runner) as process:
        assert taken.wait(PATIENCE_S)
    assert process.error is None
    written = sum(found(log).values())
    assert written > 0
    assert 200 - written == lag(log), "every record written was committed"


def test_stopped_it_has_left_the_group(log: SqliteLog) -> None:
    """The next reader gets the partitions at once, before the first one's session ends."""
    with running(Runner(log, Stateless(copy), config("first"))):
        put(log, 10)
        until(lambda: lag(log) == 0)
    reader = log.reader(["source"], group="copiers", instance="second")
    reader.read(1, 0.0)
    assert len(reader.assignment) == PARTITIONS
    reader.close()


def test_runners_share_and_none_loses_nor_doubles(log: SqliteLog, patient_log: SqliteLog) -> None:
    """Runners come and go while records arrive: each record is copied once, and each runner copies some."""
    watchers = {name: Watcher() for name in "abc"}

    def runner(name: str) -> Runner:
        return Runner(patient_log, Stateless(copy), config(name), observer=watchers[name])

    with running(runner("a")):
        put(log, 1_000)
        until(lambda: watchers["a"].written > 0)
        with running(runner("b")):
            until(lambda: watchers["a"].counts["revoked"] > 0)
            put(log, 1_000, 1_000)
            until(lambda: watchers["b"].written > 0)
            with running(runner("c")):
                put(log, 1_000, 2_000)
                until(lambda: watchers["c"].counts["assigned"] > 0)
            put(log, 1_000, 3_000)
        put(log, 1_000, 4_000)
        until(lambda: lag(log) == 0)
    assert once(5_000) == found(log)
    assert sum(watcher.written for watcher in watchers.values()) == 5_000, "no work was done twice"


def test_an_idle_runner_is_idle(log: SqliteLog) -> None:
    """Without new records the runner neither steps nor commits."""
    watcher = Watcher()
    with running(Runner(log, Stateless(copy), config(), observer=watcher)):
        put(log, 10)
        until(lambda: lag(log) == 0 and watcher.counts["idle"] > 0)
        before = watcher.counts.copy()
        until(lambda: watcher.counts["idle"] >= before["idle"] + 3)
        assert before["committed"] == watcher.counts["committed"]
        put(log, 10, 10)
        until(lambda: lag(log) == 0)
    assert (watcher.read, watcher.written) == (20, 20)


@pytest.mark.parametrize("delivery", list(Delivery))
@pytest.mark.parametrize("failure", ["raises", "exits", "writes too much"])
def test_a_record_that_fails_alone_is_set_aside(log: SqliteLog, delivery: Delivery, failure: str) -> None:
    """A step that raises for some records of a batch, or whose result is refused, costs those records: each becomes a
    dead letter, and every other one is processed (exactly once: once)."""
    put(log, 500)
    bad = {b"7", b"8", b"123", b"499"}

    def choosy(batch: Batch) -> list[Out]:
        if failure == "writes too much":
            return [Out("sink", r.key, b"x" * 2_000_000 if r.value in bad else r.value) for r in batch.records]
        if any(record.value in bad for record in batch.records):
            raise RuntimeError("no such luck") if failure == "raises" else SystemExit(3)
        return copy(batch)

    watcher = Watcher()
    with running(Runner(log, Stateless(choosy), config(delivery=delivery), observer=watcher)):
        until(lambda: lag(log) == 0)
    values, letters = found(log), found(log, "source.dlq")
    assert letters == Counter(bad)
    assert (values if delivery is Delivery.EXACTLY_ONCE else Counter(set(values))) == once(500) - Counter(bad)
    assert {letter.reason for letter in watcher.letters} == {
        "too_large" if failure == "writes too much" else "not_processed"
    }
    assert Counter(letter.record.value for letter in watcher.letters) == Counter(bad)


def test_after_two_deaths_each_record_is_committed_alone(log: SqliteLog) -> None:
    """A position at which a role died twice is read one record at a time, and only a record that kills alone is set
    aside; a position that this role has reached alone says so, until the records of a batch have passed."""
    put(log, 40)
    asked: list[bytes | None] = []
    sizes: list[int] = []

    def deadly(record: Record) -> bool:
        asked.append(record.value)
        return True

    def watched(batch: Batch) -> list[Out]:
        sizes.append(len(batch.records))
        return copy(batch)

    writer = log.writer("copier-a", Delivery.EXACTLY_ONCE)
    reader = log.reader(["source"], group="copiers", instance="a")
    reader.read(1, 1.0)
    writer.commit({tp: Committed(0, '{"starts":2}') for tp in reader.assignment}, reader)
    writer.close()
    reader.close()
    with running(Runner(log, Stateless(watched), config(), deadly=deadly)):
        until(lambda: lag(log) == 0)
        marks = {at.metadata for at in log.committed("copiers", ["source"]).values()}
    assert marks == {'{"starts":2}'}
    assert max(sizes) == 1
    assert found(log, "source.dlq") == Counter(asked)
    assert len(asked) == PARTITIONS
    assert found(log) == once(40) - Counter(asked)
