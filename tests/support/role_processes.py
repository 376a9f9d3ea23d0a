"""The roles of a harness' pipeline as processes of their own, and their log lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.environment import unmeasured

from tailrace.testing import Harness

_decoder = json.JSONDecoder()


class RoleProcesses:
    """Starts commands with the log and the keys of a harness; their output goes to one file in `directory`.

    `reference` names the pipeline file; `environment` adds variables, also later.
    """

    def __init__(self, kit: Harness, reference: str, directory: Path, **environment: str) -> None:
        self._output = directory / "roles.log"
        self.environment = unmeasured() | {
            "TAILRACE_LOG__URL": kit.settings.log.url,
            "TAILRACE_KEYS__DIRECTORY": str(kit.settings.keys.directory),
            "TAILRACE_PIPELINE": reference,
            "TAILRACE_MONITORING__PORT": "0",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            **environment,
        }

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start `tailrace <command>`."""
        with self._output.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "tailrace", *command], env=self.environment, stdout=out, stderr=out
            )

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines so far. Those of two processes may stand in one line of the file."""
        text, found, position = self._output.read_text(), list[dict[str, Any]](), 0
        while (position := text.find("{", position)) >= 0:
            try:
                line, position = _decoder.raw_decode(text, position)
            except ValueError:  # no log line, or a process is still writing it
                position += 1
            else:
                found.append(line)
        return [line for line in found if "event" in line]

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.lines() if line["event"] == event]

    def started(self, role: str) -> int:
        """Return how many times a role has started."""
        return sum(line["role"] == role for line in self.said("started"))

    def check(self, running: subprocess.Popen[bytes]) -> None:
        """Fail if the process has ended."""
        assert running.poll() is None, self._output.read_text()[-4_000:]
