"""No record ends a role: what cannot be processed becomes a dead letter, and everything else is processed once."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import hard_pipeline as hard
from support.environment import unmeasured
from support.log_place import Place
from support.role_processes import RoleProcesses
from support.waiting import PATIENCE_S, until

from tailrace.retrain.control.reports import KEY
from tailrace.streams.log.base import Topic
from tailrace.streams.log.browse import scan
from tailrace.streams.log.codec import encode
from tailrace.streams.log.dead_letters import LENGTH, SHA256, header, revived
from tailrace.streams.log.records import Headers, Out
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.log.url import open_log
from tailrace.testing import Harness
from tailrace.testing.ports import free_ports

PAYMENTS = 300
WIDE = 90_000_000  # bytes that a record of the user's own topics may have
BOTH = ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str | None:
    """Address of the log; None for an embedded one of the harness."""
    return None if request.param == "embedded" else f"kafka://{request.getfixturevalue('kafka_bootstrap')}"


@pytest.fixture
def kit(url: str | None, tmp_path: Path) -> Iterator[Harness]:
    """A harness whose events and labels topics take very large records, with a release that scores."""
    with harness(url or f"sqlite:///{tmp_path}/log.db") as kit:
        yield kit


@contextmanager
def harness(url: str, *, rekey: bool = False) -> Iterator[Harness]:
    declared = hard.declare(f"hard-{uuid.uuid4().hex[:8]}", rekey=rekey)
    log = open_log(url)
    log.create([Topic(name, 2, max_record_bytes=WIDE) for name in (declared.topics.events, declared.topics.labels)])
    log.close()
    with Harness(declared, url) as kit:
        kit.publish_untrained()
        yield kit


def event(id: str, x: float = 0.5, more: list[float] | None = None) -> bytes:
    return encode({"id": id, "at": time.time(), "x": x, "more": more or []})


def send(kit: Harness, topic: str, records: list[tuple[bytes, Headers]]) -> None:
    """Append records without keys, with a producer that sends larger records than ours."""
    url = kit.settings.log.url
    log = open_log(url, {"message.max.bytes": str(WIDE)} if url.startswith("kafka") else None)
    writer = log.writer()
    writer.write([Out(topic, None, value, headers) for value, headers in records])
    writer.commit()
    writer.flush()
    writer.close()
    log.close()


def easy(count: int, start: int = 0) -> list[tuple[bytes, Headers]]:
    return [(event(f"e{n}"), ()) for n in range(start, start + count)]


def predicted(kit: Harness) -> Counter[str]:
    return Counter(prediction.id for prediction in kit.predictions())


def once(count: int) -> Counter[str]:
    return Counter(f"e{n}" for n in range(count))


def reasons(kit: Harness) -> Counter[str]:
    return Counter(letter.reason for letter in kit.dead_letters())


def test_no_event_stops_the_worker(kit: Harness) -> None:
    """Events that are too large as they are, or as predictions, that the model raises for, and with names that are too
    long become dead letters; trace headers that are too long are left out; the others are predicted once."""
    grows = b'{"id":"grows","at":1.0,"x":1,"more":[' + b",".join([b"1e15"] * 90_000) + b"]}"
    assert len(grows) < 1_000_000
    large = event("large") + b" " * 80_000_000
    bad: list[tuple[bytes, Headers]] = [
        (grows, ()),
        (large, ()),
        (event("r1", hard.RAISES), ()),
        (event("r2", hard.RAISES), ()),
        (event("i" * 3_000), ()),
    ]
    traced: list[tuple[bytes, Headers]] = [
        (event("t1"), (("tracestate", b"x" * 3_000_000), ("traceparent", b"00-11-22-01"))),
        (event("t2"), (("traceparent", b"p"),) * 50_000),
    ]
    send(kit, kit.pipeline.topics.events, [*easy(150), *bad, *traced, *easy(150, 150)])
    kit.run_until_idle()
    assert predicted(kit) == once(PAYMENTS) + Counter(["t1", "t2"])
    assert reasons(kit) == Counter(too_large=2, model=2, wrong_shape=1)
    letters = {letter.length: letter for letter in kit.dead_letters() if letter.length}
    letter = letters[len(large)].record
    assert large.startswith(letter.value or b"nothing")
    assert header(letter, SHA256) == hashlib.sha256(large).hexdigest()
    traces = {r.headers for r in scan(kit.log, kit.pipeline.topics.predictions) if r.headers}
    assert traces == {(("traceparent", b"00-11-22-01"),), (("traceparent", b"p"),)}


def test_a_forged_header_does_not_pass_for_ours(kit: Harness) -> None:
    """A dead letter names its own reason, although its record claims another; a replay restores what was claimed."""
    claimed: Headers = (("tailrace.reason", b"forged"), (LENGTH, b"5"), ("original.tailrace.source", b"s"))
    send(kit, kit.pipeline.topics.events, [(b"no JSON", claimed)])
    kit.run_until_idle()
    (letter,) = kit.dead_letters()
    assert (letter.reason, letter.length) == ("invalid_json", None)
    assert revived(letter.record, "x").headers == claimed


@pytest.mark.parametrize("rekey", [False, True])
def test_no_label_stops_the_joiner(url: str | None, tmp_path: Path, rekey: bool) -> None:
    """Labels and ids of labels that are too large become dead letters; the other labels are joined once."""
    with harness(url or f"sqlite:///{tmp_path}/log.db", rekey=rekey) as kit:
        check_labels(kit)


def check_labels(kit: Harness) -> None:
    send(kit, kit.pipeline.topics.events, easy(20))
    kit.run_until_idle()
    bad: list[dict[str, Any]] = [{"id": "e3", "label": "true" + " " * 999_000}, {"id": "e" * 600_000, "label": True}]
    good = [{"id": f"e{n}", "label": True} for n in range(20)]
    writer = kit.log.writer()
    topic = kit.pipeline.topics.labels
    writer.write([Out(topic, str(label["id"])[:9].encode(), encode(label)) for label in [*bad, *good]])
    writer.commit()
    writer.close()
    kit.run_until_idle()
    assert Counter(example.id for example in kit.examples()) == once(20)
    assert reasons(kit) == Counter(too_large=1, wrong_shape=1)


@pytest.mark.kafka
def test_a_header_name_that_is_no_text_costs_the_headers_alone(kafka_bootstrap: str) -> None:
    """confluent-kafka raises for such a record's headers: it is read without them, by workers, scans and followers."""
    from kafka import KafkaProducer

    class Bytes(str):
        """A name that kafka-python writes as bytes that are no text."""

        def encode(self, *_: object) -> bytes:
            return b"\xff\xfe"

    with harness(f"kafka://{kafka_bootstrap}") as kit:
        topics = kit.pipeline.topics
        producer = KafkaProducer(bootstrap_servers=kafka_bootstrap)
        for n in range(10):
            headers = [(Bytes("h"), b"x")] if n % 2 else [("h", b"x")]
            producer.send(topics.events, event(f"e{n}"), headers=headers)
        producer.send(topics.models, b"{}", key=b"nothing of ours", headers=[(Bytes("h"), b"x")])
        producer.close()
        kit.run_until_idle()
        assert predicted(kit) == once(10)
        assert not kit.dead_letters()
        found = [record.headers for record in scan(kit.log, topics.events)]
        assert Counter(found) == Counter({(): 5, (("h", b"x"),): 5})
        with kit.follow() as live:
            assert live.predict([{"id": "1", "at": 1.0, "x": 0.5}]).release == 1


def test_a_nested_record_in_the_models_topic_is_ignored(kit: Harness) -> None:
    """Records that are nested too deeply, under every kind of key, stop neither worker nor retrainer."""
    deep = b'{"signature":' + b"[" * 200_000
    writer, topic = kit.log.writer(), kit.pipeline.topics.models
    keys = (b"alias/champion", b"release/00000009/manifest", KEY)
    writer.write([Out(topic, key, deep) for key in keys])
    writer.commit()
    writer.close()
    send(kit, kit.pipeline.topics.events, easy(5))
    kit.run_until_idle()
    assert predicted(kit) == once(5)
    assert {prediction.release for prediction in kit.predictions()} == {1}


@pytest.mark.long
def test_an_event_that_kills_the_worker_is_set_aside(kit: Harness, tmp_path: Path) -> None:
    """`tailrace run` restarts the worker; after two deaths it reads one record at a time, and the deadly one becomes a
    dead letter; all other events are predicted once."""
    deadly = [(event("k1", hard.KILLS), ()), (event("k2", hard.KILLS), ())]
    send(kit, kit.pipeline.topics.events, [*easy(100), deadly[0], *easy(100, 100), deadly[1], *easy(100, 200)])
    role = RoleProcesses(kit, f"{hard.__file__}:pipeline", tmp_path, HARD_NAME=kit.pipeline.name)
    running = role.start("run", "--no-console")

    def done() -> bool:
        role.check(running)
        return len(kit.predictions()) >= PAYMENTS and len(kit.dead_letters()) >= 2

    try:
        until(done)
    finally:
        running.terminate()
        running.wait(PATIENCE_S)
    assert predicted(kit) == once(PAYMENTS)
    assert reasons(kit) == Counter(fatal=2)
    assert running.returncode == 0
    assert sum(line["event"] == "a record was set aside as a dead letter" for line in role.lines()) == 2


@pytest.mark.long
@pytest.mark.timeout(900)
def test_kills_from_outside_set_nothing_aside(tmp_path: Path) -> None:
    """A role that is killed a hundred times at one position, from outside, processes every record in the end."""
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic("source"), Topic("sink"), Topic("source.dlq")])
    place = Place("", log)
    place.put("source", [b"%d" % n for n in range(50)])
    child = [sys.executable, str(Path(__file__).parents[1] / "support" / "slow_child.py"), str(tmp_path / "log.db")]
    environment = unmeasured() | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for _ in range(100):
        process = subprocess.Popen([*child, "wait"], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert b"processing\n" in iter(process.stdout.readline, b"")  # behind a log line
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        process.stdout.close()
    assert not place.values("sink")
    done = subprocess.run([*child, "copy"], env=environment, timeout=PATIENCE_S, check=False, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert place.values("sink") == Counter({b"%d" % n: 1 for n in range(50)})
    assert not place.values("source.dlq")
    log.close()


@pytest.mark.long
def test_a_killed_role_gets_its_port_again_and_a_taken_port_is_left(kit: Harness, tmp_path: Path) -> None:
    """`tailrace run` goes on after any kill of a worker that serves metrics, and where a port is taken it uses the next
    free one and says so."""
    ports = free_ports(6)
    role = RoleProcesses(kit, f"{hard.__file__}:pipeline", tmp_path, HARD_NAME=kit.pipeline.name)
    role.environment["TAILRACE_MONITORING__PORT"] = str(ports[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[1]))
        taken.listen()
        running = role.start("run", "--no-console")
        try:
            for n in range(3):
                until(lambda: role.started("worker") == n + 1, check=lambda: role.check(running))  # noqa: B023
                with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=30) as page:
                    assert b"tailrace_" in page.read()
                    os.kill(_pid(running.pid, "worker"), signal.SIGKILL)
            until(lambda: role.started("worker") == 4, check=lambda: role.check(running))
            assert running.poll() is None
        finally:
            running.terminate()
            running.wait(PATIENCE_S)
    assert running.returncode == 0
    said = [line for line in role.lines() if line["event"] == "a monitoring port is taken"]
    assert [(line["role"], line["port"], line["instead"]) for line in said] == [("joiner", ports[1], ports[3])]


def _pid(parent: int, name: str) -> int:
    """The process of a role."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if name in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
            return int(child)
    raise AssertionError(f"no {name} runs")
