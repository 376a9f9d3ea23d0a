"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import retrain_pipeline as tiny
from support.lossy_log import LossyLog
from support.retraining import EXAMPLES, MODELS, Running, Start
from support.shell import Shell

from tailrace import Pipeline
from tailrace.inference.releases.storage import Store
from tailrace.streams.log.base import Topic
from tailrace.streams.log.sqlite.log import SqliteLog


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Every command starts from a clean environment, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TAILRACE_DEBUG", "TAILRACE_CONFIG"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    return Shell(tmp_path, capsys)


@pytest.fixture
def start(log: SqliteLog) -> Iterator[Start]:
    """Starts retrainers that end with the test, however it ends."""
    with ExitStack() as stack:

        def one(
            declared: Pipeline = tiny.pipeline,
            name: str = "pipeline",
            store: Store | None = None,
            process: bool = False,
        ) -> Running:
            running = Running(log, declared, name, store, process=process)
            stack.callback(running.close)
            return running

        yield one


@pytest.fixture
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LossyLog]:
    """The embedded log with the topics that a retrainer needs."""
    store = LossyLog(tmp_path / "log.db")
    store.create([Topic(MODELS, compacted=True, **getattr(request, "param", {})), Topic(EXAMPLES, partitions=2)])
    yield store
    store.close()
