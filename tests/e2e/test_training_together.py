"""Training by two processes, through the commands that an operator types, publishes a release."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from support.waiting import PATIENCE_S

from tailrace.inference.releases.signing import create_keys
from tailrace.retrain.control.reports import RunReport, read_report
from tailrace.streams.log.records import Example, Out, Source
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.testing.ports import free_port

pytestmark = pytest.mark.long

DECLARATION = """
from tailrace import Event, Key, Label, Number, Pipeline, Training
from tailrace.triggers import Labels


class Reading(Event):
    id: Key
    x: Number


plan = Training(min_examples=100, holdout_least=50, epochs=5, batch_size=32, learning_rate=0.01)
label = Label("big")
pipeline = Pipeline("readings", event=Reading, label=label, retrain=[Labels(200)], training=plan, online=False)
"""


@contextmanager
def running(directory: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in the directory; end it with the block."""
    environment = os.environ | {"TAILRACE_MONITORING__ENABLED": "false", "OMP_NUM_THREADS": "1"}
    with (directory / "err.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=directory, env=environment, stdin=subprocess.PIPE, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE_S)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a pipeline and keys."""
    (tmp_path / "pipeline.py").write_text(DECLARATION)
    create_keys(tmp_path / ".tailrace" / "keys")
    return tmp_path


def first_report(directory: Path, process: subprocess.Popen[bytes]) -> RunReport:
    """Write the examples as soon as the retrainer has created the topics; return the report of its first run."""
    log = SqliteLog(directory / ".tailrace" / "log.db")
    try:
        _await(process, directory, lambda: b'"started"' in (directory / "err.log").read_bytes())
        writer = log.writer()
        writer.write([example(n) for n in range(400)])
        writer.close()
        reader = log.reader(["readings.models"])
        found: list[RunReport] = []

        def look() -> bool:
            found.extend(filter(None, map(read_report, reader.read(1_000, 0.0).records)))
            return bool(found)

        _await(process, directory, look)
        reader.close()
    finally:
        log.close()
    return found[0]


def example(n: int) -> Out:
    """Return example `n` of 400. Its label is x > 0; the values of x cover -1 to 1 in mixed order."""
    x = (n * 147 % 400) / 200 - 1
    raw = msgspec.Raw(msgspec.json.encode({"id": f"r{n}", "x": x}))
    made = Example(f"r{n}", float(n), float(n + 1), x > 0, 0, [0.5], raw, Source(0, n))
    return Out("readings.examples", made.id.encode(), msgspec.json.encode(made), partition=0)


def test_two_processes_publish_a_release(directory: Path) -> None:
    """`tailrace retrainer --nproc 2` trains in two processes, publishes their release, and leaves no process behind."""
    with running(directory, "-m", "tailrace", "retrainer", "--nproc", "2", "--until-eof") as retrainer:
        report = first_report(directory, retrainer)
        ranks = _descendants(retrainer.pid, "tailrace.retrain.worker.rank")
        assert len(ranks) == 1
    assert report.outcome == "published", report
    assert report.gate is not None
    assert report.gate.candidate is not None
    assert report.gate.candidate < 0.5
    _await(None, directory, lambda: not any(map(_alive, ranks)))


def test_torchrun_starts_the_ranks(directory: Path) -> None:
    """Under torchrun rank 0 is the retrainer and the other ranks train with it. Shown on one machine only."""
    launcher = (
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "1",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    )
    with running(directory, *launcher, "-m", "tailrace", "retrainer") as agent:
        report = first_report(directory, agent)
        assert not _descendants(agent.pid, "tailrace.retrain.worker.rank")
    assert report.outcome == "published", report


def _descendants(pid: int, name: str) -> list[int]:
    """Return the descendants of a process that have this word in their command line."""
    parents: dict[int, int] = {}
    named: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if name.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    named.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue

    def below(one: int) -> bool:
        return one == pid or (one in parents and below(parents[one]))

    return [one for one in named if below(one)]


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _await(process: subprocess.Popen[bytes] | None, directory: Path, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        ended = process is not None and process.poll() is not None
        failed = ended or time.monotonic() > deadline
        assert not failed, (directory / "err.log").read_text()
        time.sleep(0.02)
