"""From a data file to a running, learning pipeline: what a user types, with real processes on the embedded log."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.project import Project
from support.waiting import PATIENCE_S
from support.waiting import until as await_condition

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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Project that `init --from` wrote."""
    project = Project(tmp_path)
    columns = {"label": "hot", "id": "reading", "time": "at", "label-time": "known"}
    options = [word for name, column in columns.items() for word in (f"--{name}", column)]
    project.run("init", "--from", str(table(tmp_path / "readings.csv", range(ROWS))), *options)
    return project


@pytest.fixture
def roles(project: Project) -> Iterator[subprocess.Popen[str]]:
    """`tailrace run`, ended with the test whatever happens."""
    running = project.start("run")
    yield running
    if running.poll() is None:
        running.terminate()
        running.communicate(timeout=PATIENCE_S)


def until(condition: Callable[[], object], roles: subprocess.Popen[str]) -> None:
    """Wait until the condition holds; fail when the roles end or it takes too long."""

    def check() -> None:
        assert roles.poll() is None, roles.communicate()

    await_condition(condition, check=check)


def count(log: Log, topic: str) -> int:
    """Number of records ever written to a topic of the embedded log."""
    return sum(log.end_positions(topic).values())


def learned(log: Log) -> int:
    """Number of labels that updates have learned."""
    return sum(at.offset for at in log.committed("readings.retrainer", ["readings.examples"]).values())


def predicted(project: Project, log: Log, rows: range, roles: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The last half of the predictions for more rows, which come slowly; their labels do not."""
    table(project.directory / "more.csv", rows)
    project.run("send", "more.csv", "--only", "events", "--rate", "100")
    until(lambda: count(log, "readings.predictions") == rows.stop, roles)
    return [json.loads(record.value or b"") for record in newest(log, "readings.predictions", len(rows) // 2)[0]]


def loss(prediction: dict[str, Any]) -> float:
    """The log loss of one prediction: what is hot follows from the event."""
    (score,), event = prediction["scores"], prediction["features"]
    return -math.log(score if event["level"] + (event["site"] == "a") > 0.3 else 1 - score)


def test_a_data_file_becomes_a_pipeline_that_learns(project: Project, roles: subprocess.Popen[str]) -> None:
    """The generated test passes; every row is predicted, every label joined and learned, the newest release serves and
    is of use, an operator's word counts, and SIGTERM drains with exit code 0."""
    assert "1 passed" in project.run("-q", "-p", "no:cacheprovider", "test_pipeline.py", module="pytest")
    sent = project.json("send", "readings.csv")
    assert (sent["events"], sent["labels"]) == (ROWS, ROWS)
    log = open_log(f"sqlite:///{project.directory}/.tailrace/log.db")
    until(lambda: count(log, "readings.predictions") == ROWS == count(log, "readings.examples"), roles)
    until(lambda: learned(log) > ROWS - 50, roles)
    releases = project.json("models", "ls")
    version = releases[-1]["version"]
    assert [release["version"] for release in releases if release["aliases"]] == [version]
    assert project.json("models", "verify") == [{"version": r["version"], "verdict": "ok"} for r in releases]
    said = predicted(project, log, range(ROWS, ROWS + MORE), roles)
    assert {prediction["release"] for prediction in said} == {version}
    assert mean(loss(prediction) for prediction in said) < 0.6

    assert project.json("models", "promote", "0") == {"champion": 0, "before": version}
    said = predicted(project, log, range(ROWS + MORE, ROWS + 2 * MORE), roles)
    assert said[-1]["release"] == 0
    assert project.json("dlq", "ls") == []
    log.close()
    roles.send_signal(signal.SIGTERM)
    _, errors = roles.communicate(timeout=PATIENCE_S)
    assert roles.returncode == 0, errors
    assert "error" not in {json.loads(line)["level"] for line in errors.splitlines()}


@pytest.mark.long
def test_the_sample_file_works_as_the_readme_types_it(tmp_path: Path) -> None:
    """`demo --sample`, `init --from`, the generated test, `send` and `backtest` run on the sample as documented."""
    shell = Project(tmp_path)
    shell.run("demo", "--sample", "flights.csv")
    shell.run("init", "--from", "flights.csv", "--label", "late", "--time", "scheduled", "--label-time", "landed")
    assert "1 passed" in shell.run("-q", "-p", "no:cacheprovider", "test_pipeline.py", module="pytest")
    sent = shell.json("send", "flights.csv")
    assert (sent["events"], sent["labels"]) == (5_000, 4_949)
    (tmp_path / "daily.toml").write_text('retrain = [{ schedule = "0 5 * * *" }]\n')
    outcome = shell.json("backtest", "--data", "flights.csv", "--policy", "daily.toml", "--limit", "1000")
    assert [entry["name"] for entry in outcome["policies"]] == ["declared", "daily"]
    assert outcome["events"] == 1_000
