"""`tailrace models show` and `rebuild`, on the releases of a retrainer process that was restarted."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from support.shell import TOML, Shell
from support.waiting import PATIENCE_S, until

from tailrace.app.pipeline_file import load_pipeline
from tailrace.inference.releases.signing import create_keys
from tailrace.retrain.control.model_topic import Models
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import Example, Out, Source
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log

DECLARATION = """
from tailrace import Event, EventTime, Key, Label, Number, Online, Pipeline, Training
from tailrace.triggers import Labels


class Row(Event):
    id: Key
    at: EventTime
    x: Number


plan = Training(min_examples=60, holdout_least=50, epochs=4, batch_size=32, seed=3)
label = Label("y", wait="1h")
pipeline = Pipeline("small", event=Row, label=label, training=plan, retrain=[Labels(400)], online=Online(labels=50))
"""
START = 1_700_000_000.0


def examples(start: int, end: int) -> list[Out]:
    """Example records number `start` to `end` (exclusive): y is x > 0, known a minute after the event."""
    records: list[Out] = []
    for n in range(start, end):
        x, at = (n * 147 % 400) / 200 - 1, START + n
        raw = msgspec.Raw(msgspec.json.encode({"id": f"r{n}", "at": at, "x": x}))
        example = Example(f"r{n}", at, at + 60, x > 0, 0, [0.5], raw, Source(0, n))
        records.append(Out("small.examples", example.id.encode(), msgspec.json.encode(example), partition=n % 2))
    return records


@contextmanager
def retrainer(directory: Path) -> Iterator[None]:
    """Run a retrainer process until the context ends, then stop it with SIGTERM."""
    environment = os.environ | {"TAILRACE_MONITORING__ENABLED": "false", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tailrace", "retrainer"]
    with (directory / "err.log").open("ab") as errors:
        process = subprocess.Popen(command, cwd=directory, env=environment, stderr=errors)
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, (directory / "err.log").read_text()


def write(log: Log, records: list[Out]) -> None:
    """Write and commit records."""
    writer = log.writer()
    writer.write(records)
    writer.close()


def learned_through(models: Models) -> int:
    """Number of examples that the champion has learned."""
    models.refresh()
    return sum(part.end for part in models.manifest(models.champion).ranges) if models.champion else 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a retrainer that has made online updates and a run, was restarted, and has made more updates."""
    directory = tmp_path_factory.mktemp("world")
    (directory / "pipeline.py").write_text(DECLARATION)
    (directory / "tailrace.toml").write_text(TOML)
    create_keys(directory / ".tailrace" / "keys")
    with closing(open_log(f"sqlite:///{directory}/log.db")) as log:
        log.create(topology(load_pipeline(f"{directory}/pipeline.py"), 2))
        models = Models(log, "small.models")

        def learn(start: int, end: int) -> None:
            write(log, examples(start, end))
            until(lambda: learned_through(models) > end - 50)

        with retrainer(directory):
            learn(0, 200)
            learn(200, 400)
            until(lambda: learned_through(models) > 350 and models.last_run is not None)
            learn(400, 500)
        with retrainer(directory):
            learn(500, 600)
    return directory


@pytest.fixture
def learned(shell: Shell, world: Path) -> Shell:
    """The command in a copy of the directory `world`."""
    shutil.copytree(world, shell.directory, dirs_exist_ok=True)
    return shell


def test_releases_are_rebuilt_in_another_process(learned: Shell) -> None:
    """Another process rebuilds all releases of a restarted retrainer bit for bit: those of updates and of a run."""
    command = [sys.executable, "-m", "tailrace", "models", "rebuild", "latest", "--json"]
    done = subprocess.run(command, cwd=learned.directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    latest = json.loads(done.stdout)
    kept = learned("models", "ls", "--json").data
    assert latest["version"] == kept[-1]["version"]
    assert any(row["reason"].startswith("400 new labels") for row in kept)
    for row in kept:
        rebuilt = learned("models", "rebuild", str(row["version"]), "--json")
        assert (rebuilt.code, rebuilt.data["equal"]) == (0, True), rebuilt
        assert rebuilt.data["sha256"] == rebuilt.data["rebuilt"]
        assert rebuilt.data["examples"] == row["examples"]
    assert "equal weights, bit for bit" in learned("models", "rebuild", "champion").out


def test_a_rebuild_by_other_code_fails(learned: Shell) -> None:
    """Another network gives different weights: exit code 1 and the reason. Other features are an error."""
    pipeline = learned.directory / "pipeline.py"
    other = "from torch import nn\n\nclass Other(nn.Module):\n"
    other += "    def __init__(self):\n        super().__init__()\n        self.layer = nn.Linear(1, 1)\n"
    other += "    def forward(self, numbers, categories):\n        return self.layer(numbers)\n"
    pipeline.write_text(other + DECLARATION.replace("label=label,", "label=label, model=Other,"))
    run = next(row for row in learned("models", "ls", "--json").data if row["reason"].startswith("400"))["version"]
    done = learned("models", "rebuild", str(run), "--json")
    assert (done.code, done.data["equal"]) == (1, False)
    assert "other code trained the release" in done.error.splitlines()[-1]
    pipeline.write_text(DECLARATION.replace("    x: Number", "    z: Number = 0"))
    done = learned("models", "rebuild", "latest")
    assert (done.code, done.out, len(done.error.splitlines())) == (1, "", 1)
    assert "was made for other features, or another label" in done.error


def test_an_impossible_rebuild_is_one_line(learned: Shell) -> None:
    """A missing release, the base rate, and a release whose examples were removed cannot be rebuilt."""
    for version, code, message in (
        ("99", 1, "there is no release 99"),
        ("0", 2, "is the base-rate model"),
        ("x", 2, "'x'"),
    ):
        done = learned("models", "rebuild", version)
        assert (done.code, done.out, len(done.error.splitlines())) == (code, "", 1)
        assert message in done.error
    with sqlite3.connect("log.db") as db:
        topic = db.execute("SELECT id FROM topic WHERE name = 'small.examples'").fetchone()[0]
        for (partition,) in db.execute("SELECT id FROM partition WHERE topic = ?", (topic,)).fetchall():
            db.execute("DELETE FROM record WHERE id IN (SELECT min(id) FROM record WHERE id >> 40 = ?)", (partition,))
    db.close()
    done = learned("models", "rebuild", "latest")
    assert (done.code, len(done.error.splitlines())) == (1, 1)
    assert "begins at offset 1, 0 is needed: the examples were removed" in done.error


def test_show_describes_the_history_of_a_release(learned: Shell) -> None:
    """`models show` prints training data, lineage, reason and gate verdict of a release, as text and as JSON."""
    description = learned("models", "show", "latest", "--json").data
    line = description["lineage"]
    assert line[0]["version"] == description["version"]
    assert line[-1]["made_by"] == "run"
    chain = description["chain"]
    assert (chain["base"], chain["labels"] + chain["remembered"]) == (line[1]["version"], 600)
    assert (description["examples"], description["aliases"]) == (600, ["champion"])
    shown = learned("models", "show", "latest").out
    assert (
        f"v{description['version']} <- update of v{description['parent']} (chain of {chain['updates']:,} update"
        in shown
    )
    assert f" from v{chain['base']}, an update)" in shown
    assert f"v{line[-1]['version']} <- run from fresh weights, compared with v" in shown
    assert "learned     600 examples; newest event 2023-11-14 22:23:19" in shown
    assert "            small.examples/1, offsets 0 to 299" in shown
    assert f"signed by key {description['key_id']}" in shown
    run = learned("models", "show", str(line[-1]["version"])).out
    assert "reason      400 new labels (every 400)" in run
    assert "facts       400 labels; " in run
    assert "plan        min_examples=60, epochs=4, batch_size=32, holdout_least=50, seed=3" in run
    assert "metrics     log loss 0." in run
    assert ", the champion's 0." in run
