"""Directory with a pipeline, in which the `tailrace` command runs as a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.waiting import PATIENCE_S


class Project:
    """A project directory. Roles take any free monitoring port; `environment` adds variables."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self._environment = {**os.environ, "TAILRACE_MONITORING__PORT": "0", **environment}

    def start(self, *arguments: str, module: str = "tailrace") -> subprocess.Popen[str]:
        """Start `python -m <module> <arguments>` in the directory."""
        return self._start("-m", module, *arguments)

    def run(self, *arguments: str, module: str = "tailrace") -> str:
        """Run a command that must succeed; return its output."""
        return _output(self.start(*arguments, module=module))

    def run_code(self, code: str) -> str:
        """Run Python code that must succeed; return its output."""
        return _output(self._start("-c", code))

    def json(self, *arguments: str) -> Any:
        """Run a command with --json; return its decoded output."""
        return json.loads(self.run(*arguments, "--json"))

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, *arguments]
        return subprocess.Popen(
            command, cwd=self.directory, env=self._environment, stdout=pipe, stderr=pipe, text=True, bufsize=1
        )


def _output(child: subprocess.Popen[str]) -> str:
    out, error = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, (child.args, out, error)
    return out
