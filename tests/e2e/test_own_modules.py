"""A user's own `streams`, `inference`, `retrain` and `monitoring` beside `pipeline.py` hide no part of Tailrace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.project import Project
from support.waiting import PATIENCE_S, until

from tailrace.retrain.control.reports import read_report
from tailrace.streams.log.base import Log
from tailrace.streams.log.browse import newest
from tailrace.streams.log.url import open_log

ROWS = 400
PIPELINE = """
from typing import Annotated

from tailrace import Event, EventTime, Key, Label, Number, Online, Pipeline
from tailrace import triggers

import monitoring
import retrain
from inference import Linear
from streams import NAME


class Reading(Event):
    id: Key
    at: EventTime
    level: Number


pipeline = Pipeline(
    NAME,
    event=Reading,
    label=Label(monitoring.LABEL, kind="binary", wait="1h"),
    model=Linear,
    online=Online(labels=50),
    retrain=[triggers.Labels(200)],
    training=retrain.PLAN,
)
"""
OWN_MODULES = {
    "streams.py": 'NAME = "readings"\n',
    "inference.py": """
from torch import nn


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers, categories):
        return self.layer(numbers)
""",
    "retrain.py": """
from tailrace import Training

PLAN = Training(min_examples=100, holdout_least=50, epochs=3, learning_rate=0.05)
""",
    "monitoring/__init__.py": "from monitoring.names import LABEL\n",
    "monitoring/names.py": 'LABEL = "hot"\n',
}
SETTINGS = '[log]\nurl = "sqlite:///log.db"\n[send]\ntime = "at"\nlabel = "hot"\nlabel_time = "known"\n'
TEST_MODULE = """
from tailrace.testing import Harness

from pipeline import pipeline


def test_pipeline():
    with Harness(pipeline) as kit:
        release = kit.publish_untrained()
        kit.send({"id": "1", "at": kit.clock.now, "level": 0.5})
        kit.run_until_idle()
        assert [prediction.release for prediction in kit.predictions()] == [release]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A pipeline that imports all four modules of its own, and a data file."""
    files = {"pipeline.py": PIPELINE, "tailrace.toml": SETTINGS, "test_pipeline.py": TEST_MODULE, **OWN_MODULES}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    lines = [f"r{n},{1_767_225_600 + n},{n % 7 - 3},{int(n % 7 > 3)},{1_767_225_610 + n}" for n in range(ROWS)]
    (tmp_path / "readings.csv").write_text("\n".join(["id,at,level,hot,known", *lines, ""]))
    return Project(tmp_path, OMP_NUM_THREADS="1")


@pytest.fixture
def roles(project: Project) -> Iterator[subprocess.Popen[str]]:
    """`tailrace run --no-console` with two training processes, ended with the test."""
    two = Project(project.directory, OMP_NUM_THREADS="1", TAILRACE_RETRAINER__NPROC="2")
    running = two.start("run", "--no-console")
    yield running
    if running.poll() is None:
        running.terminate()
        running.communicate(timeout=PATIENCE_S)


def published_runs(log: Log) -> int:
    """The number of releases that whole training runs have published."""
    reports = (read_report(record) for record in newest(log, "readings.models", 1_000)[0])
    return sum(report is not None and report.version is not None for report in reports)


@pytest.mark.long
def test_roles_ranks_and_training_processes_run(project: Project, roles: subprocess.Popen[str]) -> None:
    """All roles start, an update and a run of two ranks are published, and SIGTERM drains with exit code 0."""

    def check() -> None:
        assert roles.poll() is None, roles.communicate()

    assert project.json("send", "readings.csv")["labels"] == ROWS
    log = open_log(f"sqlite:///{project.directory}/log.db")
    until(lambda: published_runs(log), check=check)
    assert len(project.json("models", "ls")) > published_runs(log), "no online update was published"
    log.close()
    assert project.json("models", "verify")[0]["verdict"] == "ok"
    roles.send_signal(signal.SIGTERM)
    _, errors = roles.communicate(timeout=PATIENCE_S)
    assert roles.returncode == 0, errors
    assert "error" not in {json.loads(line)["level"] for line in errors.splitlines() if line.endswith("}")}


def test_commands_and_imports_work(project: Project) -> None:
    """The declaration imports as a module, its test passes, and a backtest's reader process loads it."""
    assert project.run_code("import pipeline; print(pipeline.pipeline.name)").strip() == "readings"
    assert "1 passed" in project.run("-q", "-p", "no:cacheprovider", "test_pipeline.py", module="pytest")
    outcome = project.json("backtest", "pipeline.py", "--data", "readings.csv")
    assert (outcome["events"], outcome["labels"]) == (ROWS, ROWS)


def test_the_installed_command_works(project: Project) -> None:
    """The `tailrace` script, which does not put the directory on the path by itself, loads the pipeline too."""
    script = Path(sys.executable).with_name("tailrace")
    done = subprocess.run(
        [script, "doctor", "--json"], cwd=project.directory, capture_output=True, text=True, timeout=PATIENCE_S
    )
    checks = {check["check"]: check["state"] for check in json.loads(done.stdout)}
    assert checks["pipeline"] == "ok", done.stderr


def test_init_writes_a_pipeline_beside_them(project: Project) -> None:
    """`init --from` writes a declaration and a test that pass beside the user's modules."""
    columns = ("--label", "hot", "--time", "at", "--label-time", "known")
    project.run("init", "--from", "readings.csv", "--force", *columns)
    assert "1 passed" in project.run("-q", "-p", "no:cacheprovider", "test_pipeline.py", module="pytest")
