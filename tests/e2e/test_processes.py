"""Roles as child processes: they end with the process that started them, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.waiting import until

from tailrace.app.supervisor import ROLES
from tailrace.inference.releases.signing import create_keys

DECLARATION = """
from tailrace import Event, Key, Label, Number, Pipeline


class Reading(Event):
    id: Key
    x: Number


pipeline = Pipeline("readings", event=Reading, label=Label("big"))
"""
PARENT = """
import sys, threading
from collections.abc import Callable
from pathlib import Path
from tailrace.app.supervisor import ROLES, Roles

with Roles("pipeline.py", {}, logs=Path(".")) as roles:
    print(*(roles.pid(role) for role in ROLES), flush=True)
    threading.Event().wait()
"""


def test_roles_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """kill -9 of `run` or `demo` leaves no role behind: each drains, as its standard input has ended."""
    (tmp_path / "pipeline.py").write_text(DECLARATION)
    create_keys(tmp_path / ".tailrace" / "keys")
    environment = os.environ | {"TAILRACE_MONITORING__PORT": "0"}
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == len(ROLES)
        until(lambda: all(b'"started"' in _log(tmp_path, role) for role in ROLES))
        parent.send_signal(signal.SIGKILL)
    until(lambda: all(b'"stopped"' in _log(tmp_path, role) for role in ROLES))
    until(lambda: not any(_alive(pid) for pid in pids))


def _log(directory: Path, role: str) -> bytes:
    path = directory / f"{role}.log"
    return path.read_bytes() if path.exists() else b""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
