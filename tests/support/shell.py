"""Small pipeline in a temporary directory, and the command line run inside the test process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tailrace.cli.main import run
from tailrace.streams.log.base import Log
from tailrace.streams.log.url import open_log

PIPELINE = """
from tailrace import Event, EventTime, Key, Label, Number, Pipeline


class Row(Event):
    id: Key
    at: EventTime
    x: Number


pipeline = Pipeline("small", event=Row, label=Label("y", wait="1h"))
"""
TOML = '[log]\nurl = "sqlite:///log.db"\n[send]\ntime = "at"\nlabel = "y"\nlabel_time = "known"\n'


class Done(NamedTuple):
    """Result of a command: exit code and output."""

    code: int
    out: str
    error: str

    @property
    def data(self) -> Any:
        """Decoded output of a command with --json."""
        return json.loads(self.out)


class Shell:
    """The `tailrace` command in a directory with a pipeline."""

    def __init__(self, directory: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._captured = captured
        (directory / "pipeline.py").write_text(PIPELINE)
        (directory / "tailrace.toml").write_text(TOML)

    def __call__(self, *arguments: str | Path) -> Done:
        self._captured.readouterr()
        code = run([str(argument) for argument in arguments])
        out, error = self._captured.readouterr()
        return Done(int(code), out, error)

    def log(self) -> Log:
        """Open the log that the commands use."""
        return open_log("sqlite:///log.db")

    def data(self, rows: int) -> Path:
        """Write a data file: event n at 1000 + n, its label known 100 seconds later, `y` alternating."""
        lines = [f"{1000 + n},{n},{n % 2},{1100 + n}" for n in range(rows)]
        file = self.directory / "data.csv"
        file.write_text("\n".join(["at,x,y,known", *lines, ""]))
        return file
