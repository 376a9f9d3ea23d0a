"""A pipeline inside a Faust application: real `faust worker` processes on a real Kafka, swapped and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.waiting import until

from tailrace import Event, EventTime, Key, Label, Number, Pipeline
from tailrace.testing import Harness
from tailrace.testing.ports import free_port

PARTITIONS, PATIENCE_S = 2, 240.0
APP = """
import faust

import tailrace.contrib.faust
from declared_for_faust import pipeline

app = faust.App(
    "{name}-app",
    broker="kafka://{bootstrap}",
    datadir="{directory}",
    web_port={port},
    web_host="127.0.0.1",
    broker_session_timeout=6.0,
    broker_heartbeat_interval=1.0,
    topic_disable_leader=True,
)
tailrace.contrib.faust.attach(app, pipeline, keep=1_000)
"""
OWN_AGENT = """

@app.agent(app.topic(pipeline.topics.events, value_serializer="raw", value_type=bytes))
async def own(events):
    async for event in events:
        with open("seen", "ab") as file:
            file.write(event + b"\\n")
"""
DECLARED = """
from tailrace import Event, EventTime, Key, Label, Number, Pipeline


class Row(Event):
    id: Key
    at: EventTime
    x: Number


pipeline = Pipeline("{name}", event=Row, label=Label("y", base_rate=0.25))
"""


class Row(Event):
    """An event, as the application declares it."""

    id: Key
    at: EventTime
    x: Number


class Worker:
    """A process `faust -A app worker` in a directory of its own."""

    def __init__(self, directory: Path, kit: Harness, bootstrap: str, more: str = "") -> None:
        name = kit.pipeline.name
        self.port = free_port()
        texts = {"name": name, "bootstrap": bootstrap, "directory": directory / "data", "port": self.port}
        (directory / "faustapp.py").write_text(APP.format(**texts) + more)
        (directory / "declared_for_faust.py").write_text(DECLARED.format(**texts))
        self._directory, self.log = directory, directory / "faust.log"
        self._environment = {
            **os.environ,
            "TAILRACE_KEYS__DIRECTORY": str(kit.settings.keys.directory),
            "TAILRACE_LOG__PARTITIONS": "7",  # ignored: the topics exist, with PARTITIONS
            "PYTHONPATH": str(directory),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "faust", "-A", "faustapp", "worker", "-l", "info"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._directory, env=self._environment, stdout=log, stderr=log
            )

    def check(self) -> None:
        """Fail if the process has ended."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-4_000:]

    def end(self, how: signal.Signals) -> int:
        """Send a signal and wait; return the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(PATIENCE_S)

    def get(self, path: str) -> Any:
        """Return the answer of the web view; None if it is 404."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return None if error.code == 404 else pytest.fail(f"{path}: {error}")


@pytest.fixture
def kit(kafka_bootstrap: str) -> Iterator[Harness]:
    declared = Pipeline(f"rows-{uuid.uuid4().hex[:8]}", event=Row, label=Label("y", base_rate=0.25))
    with Harness(declared, f"kafka://{kafka_bootstrap}", partitions=PARTITIONS) as kit:
        yield kit


@pytest.fixture
def worker(tmp_path: Path, kit: Harness, kafka_bootstrap: str) -> Iterator[Worker]:
    worker = Worker(tmp_path, kit, kafka_bootstrap)
    yield worker
    worker.end(signal.SIGKILL)


def rows(kit: Harness, first: int, end: int) -> list[Row]:
    return [Row(id=f"r{n}", at=kit.clock.now, x=n / 1_000) for n in range(first, end)]


class Predicted:
    """The predictions read so far, as (release, partition) by event."""

    def __init__(self, kit: Harness) -> None:
        self._reader = kit.log.reader([kit.pipeline.topics.predictions])
        self.of: dict[str, list[tuple[int, int]]] = {}

    def all(self, count: int) -> bool:
        """Read on; return True when there are predictions for `count` events."""
        for record in self._reader.read(1_000, 0.2).records:
            said = json.loads(record.value or b"")
            self.of.setdefault(said["id"], []).append((said["release"], record.partition))
        return len(self.of) >= count

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def predicted(kit: Harness) -> Iterator[Predicted]:
    predicted = Predicted(kit)
    yield predicted
    predicted.close()


@pytest.mark.kafka
def test_every_event_is_predicted_through_a_swap_and_a_kill(kit: Harness, worker: Worker, predicted: Predicted) -> None:
    """Each event is predicted at least once, in the partition of its label, through a swap of releases and a kill -9;
    an invalid event is a dead letter, the web view shows the newest predictions, and SIGTERM drains the worker."""
    worker.start()
    kit.send(*rows(kit, 0, 500), b"no JSON")
    until(lambda: predicted.all(500), PATIENCE_S, worker.check)
    assert {release for said in predicted.of.values() for release, _ in said} == {0}

    version, sent = kit.publish_untrained(), 500
    while version not in {release for said in predicted.of.values() for release, _ in said}:
        kit.send(*rows(kit, sent, sent + 10))
        sent += 10
        until(partial(predicted.all, sent), PATIENCE_S, worker.check)

    kit.send(*rows(kit, sent, sent + 1_000))
    until(lambda: predicted.all(sent + 1), PATIENCE_S, worker.check)
    assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    kit.send(*rows(kit, sent + 1_000, sent + 1_500))
    worker.start()
    until(lambda: predicted.all(sent + 1_500), PATIENCE_S, worker.check)

    assert set(predicted.of) == {f"r{n}" for n in range(sent + 1_500)}
    assert {release for n in range(sent + 1_000, sent + 1_500) for release, _ in predicted.of[f"r{n}"]} == {version}
    assert {letter.reason for letter in kit.dead_letters()} == {"invalid_json"}
    labels = {id: kit.log.partition_of(kit.pipeline.topics.labels, id.encode()).partition for id in ("r0", "r1", "r2")}
    assert {id: {partition for _, partition in predicted.of[id]} for id in labels} == {
        id: {partition} for id, partition in labels.items()
    }

    last, view = f"r{sent + 1_499}", f"/{kit.pipeline.name}.newest/"
    until(lambda: worker.get(f"{view}{last}/"), PATIENCE_S, worker.check)
    assert worker.get(f"{view}{last}/")["release"] == version
    assert worker.get(f"{view}nobody/") is None
    listed = {prediction["id"] for prediction in worker.get(view)}
    assert len(listed) == 50
    assert listed < set(predicted.of)
    assert worker.end(signal.SIGTERM) == 0, worker.log.read_text()[-4_000:]


@pytest.mark.kafka
def test_an_agent_of_the_applications_own_may_read_the_events_too(
    kit: Harness, predicted: Predicted, tmp_path: Path, kafka_bootstrap: str
) -> None:
    """An agent of the application and the pipeline both get every event of the topic that they share."""
    worker = Worker(tmp_path, kit, kafka_bootstrap, OWN_AGENT)
    worker.start()
    try:
        kit.send(*rows(kit, 0, 300))
        until(lambda: predicted.all(300), PATIENCE_S, worker.check)
        seen = tmp_path / "seen"
        until(lambda: seen.exists() and seen.read_bytes().count(b"\n") >= 300, PATIENCE_S, worker.check)
        ids = {json.loads(line)["id"] for line in seen.read_bytes().splitlines()}
        assert ids == set(predicted.of) == {f"r{n}" for n in range(300)}
    finally:
        worker.end(signal.SIGTERM)
