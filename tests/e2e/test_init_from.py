"""From a data file to a running, learning pipeline: what a user types, with real processes on the embedded log."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.waiting import PATIENCE_S

from tailrace.streams.log.base import Log
from tailrace.streams.log.browse import newest
from tailrace.streams.log.url import open_log

ROWS, MORE = 3_000, 200
START, MINUTE = 1_767_225_600, 60


def table(path: Path, rows: range) -> Path:
    """Readings a minute apart: `hot` follows from `level` and `site`, and is known up to an hour later."""
    draw = random.Random(rows.start)
    lines = ["reading,at,site,level,gust,hot,known"]
    for n in rows:
        site, level, at = draw.choice("abc"), draw.gauss(0, 1), START + n * MINUTE
        gust = f"{draw.random():.3f}" if n % 3 else ""
        hot, known = int(level + (site == "a") > 0.3), at + draw.randrange(60, 3_600)
        lines.append(f"r{n},{at},{site},{level:.4f},{gust},{hot},{known}")
    path.write_text("\n".join([*lines, ""]))
    return path


class Place:
    """A directory with a pipeline, and the `tailrace` command in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {**os.environ, "TAILRACE_MONITORING__PORT": "0"}

    def start(self, *arguments: str, module: str = "tailrace") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.directory, env=self._environment, stdout=pipe, stderr=pipe, text=True, bufsize=1
        )

    def run(self, *arguments: str, module: str = "tailrace") -> str:
        """What a command that succeeds prints."""
        child = self.start(*arguments, module=module)
        out, error = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, (arguments, out, error)
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """What `init --from` wrote."""
    place = Place(tmp_path)
    columns = {"label": "hot", "id": "reading", "time": "at", "label-time": "known"}
    options = [word for name, column in columns.items() for word in (f"--{name}", column)]
    place.run("init", "--from", str(table(tmp_path / "readings.csv", range(ROWS))), *options)
    return place


@pytest.fixture
def roles(place: Place) -> Iterator[subprocess.Popen[str]]:
    """`tailrace run`, ended with the test whatever happens."""
    running = place.start("run")
    yield running
    if running.poll() is None:
        running.terminate()
        running.communicate(timeout=PATIENCE_S)


def until(true: Callable[[], object], roles: subprocess.Popen[str]) -> None:
    """Wait until it is true; fail when the roles end or it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert roles.poll() is None, roles.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def count(log: Log, topic: str) -> int:
    """How many records were ever written to a topic of the embedded log."""
    return sum(log.end_positions(topic).values())


def learned(log: Log) -> int:
    """How many labels updates have learned."""
    return sum(at.offset for at in log.committed("readings.retrainer", ["readings.examples"]).values())


def predicted(place: Place, log: Log, rows: range, roles: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The last half of the predictions for more rows, which come slowly; their labels do not."""
    table(place.directory / "more.csv", rows)
    place.run("send", "more.csv", "--only", "events", "--rate", "100")
    until(lambda: count(log, "readings.predictions") == rows.stop, roles)
    return [json.loads(record.value or b"") for record in newest(log, "readings.predictions", len(rows) // 2)[0]]


def loss(prediction: dict[str, Any]) -> float:
    """The log loss of one prediction: what is hot follows from the event."""
    (score,), event = prediction["scores"], prediction["features"]
    return -math.log(score if event["level"] + (event["site"] == "a") > 0.3 else 1 - score)


def test_a_data_file_becomes_a_pipeline_that_learns(place: Place, roles: subprocess.Popen[str]) -> None:
    """The generated test passes; every row is predicted, every label joined and learned, the newest release serves and
    is of use, an operator's word counts, and SIGTERM drains with exit code 0."""
    assert "1 passed" in place.run("-q", "-p", "no:cacheprovider", "test_pipeline.py", module="pytest")
    sent = place.json("send", "readings.csv")
    assert (sent["events"], sent["labels"]) == (ROWS, ROWS)
    log = open_log(f"sqlite:///{place.directory}/.tailrace/log.db")
    until(lambda: count(log, "readings.predictions") == ROWS == count(log, "readings.examples"), roles)
    until(lambda: learned(log) > ROWS - 50, roles)
    releases = place.json("models", "ls")
    version = releases[-1]["version"]
    assert [release["version"] for release in releases if release["aliases"]] == [version]
    assert place.json("models", "verify") == [{"version": r["version"], "verdict": "ok"} for r in releases]
    said = predicted(place, log, range(ROWS, ROWS + MORE), roles)
    assert {prediction["release"] for prediction in said} == {version}
    assert mean(loss(prediction) for prediction in said) < 0.6

    assert place.json("models", "promote", "0") == {"champion": 0, "before": version}
    said = predicted(place, log, range(ROWS + MORE, ROWS + 2 * MORE), roles)
    assert said[-1]["release"] == 0
    assert place.json("dlq", "ls") == []
    log.close()
    roles.send_signal(signal.SIGTERM)
    _, errors = roles.communicate(timeout=PATIENCE_S)
    assert roles.returncode == 0, errors
    assert "error" not in {json.loads(line)["level"] for line in errors.splitlines()}
