"""The roles as real processes: started together, restarted when one dies, stopped together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import structlog

from tailrace.errors import Exit, TailraceError

ROLES = ("worker", "joiner", "retrainer")
_DRAIN_S = 20.0  # how long a role may take to finish its batch and leave its group
_QUICK_S = 5.0  # a role that dies sooner than this has something wrong that a restart will not mend
_POLL_S = 0.2
_log = structlog.get_logger(__name__)


class RoleFailed(TailraceError):
    """A role ended by itself; the message says how. `code`: the exit status of its process, negative for a signal."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = Exit(code) if code in Exit.__members__.values() else Exit.FAILED


class Roles:
    """Worker, joiner and retrainer of one pipeline as child processes; a context manager.

    `environment` adds to this process's own; `ports` are the roles' monitoring ports. With `logs`, what a role prints
    goes to `<logs>/<role>.log`.
    """

    def __init__(
        self,
        reference: str,
        environment: Mapping[str, str],
        *,
        ports: Mapping[str, int] | None = None,
        logs: Path | None = None,
        roles: Sequence[str] = ROLES,
    ) -> None:
        self._reference, self._logs, self._roles = reference, logs, roles
        self._ports = ports or {}
        self._environment = {**os.environ, **environment}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Roles:
        try:
            for role in self._roles:
                self._start(role)
        except BaseException:  # without it, roles that run already would be left: `__exit__` is not called
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def pid(self, role: str) -> int:
        """The process id of a role."""
        return self._children[role].pid

    def metrics_urls(self) -> dict[str, str]:
        """Where each role serves its metrics, as its log file tells; without a role that has not said so yet.

        A role says so once a start: the newest line counts. Raises ValueError where no log files are kept.
        """
        if self._logs is None:
            raise ValueError("roles that log nowhere tell no addresses: their ports are in the settings")
        found = {role: _metrics_url(self._logs / f"{role}.log") for role in self._roles}
        return {role: url for role, url in found.items() if url is not None}

    def check(self) -> None:
        """Restart roles that were killed. Raises RoleFailed for one that ended by itself, or too soon after its
        start."""
        for role, child in self._children.items():
            code = child.poll()
            if code is None:
                continue
            if code >= 0 or time.monotonic() - self._started[role] < _QUICK_S:
                where = f": see {self._logs / f'{role}.log'}" if self._logs else ""
                raise RoleFailed(f"the {role} ended with exit code {code}{where}", code)
            _log.warning("restarting", role=role, signal=signal.Signals(-code).name)
            self._start(role)

    def supervise(self, stop: threading.Event) -> None:
        """Check until told to stop."""
        while not stop.wait(_POLL_S):
            self.check()

    def stop(self) -> None:
        """Drain all: SIGTERM, wait, and SIGKILL for one that does not end in time."""
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _DRAIN_S
        for role, child in self._children.items():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("did not drain in time: killed", role=role, seconds=_DRAIN_S)
                child.kill()
                child.wait()
            if child.stdin:
                child.stdin.close()

    def _start(self, role: str) -> None:
        command = [sys.executable, "-m", "tailrace", role, "--until-eof", "--pipeline", self._reference]
        log: IO[bytes] | None = open(self._logs / f"{role}.log", "ab") if self._logs else None  # noqa: SIM115
        try:
            port = {"TAILRACE_MONITORING__PORT": str(self._ports[role])} if role in self._ports else {}
            self._children[role] = subprocess.Popen(
                command,
                env={**self._environment, **port},
                stdin=subprocess.PIPE,  # never written to: it ends when this process does, however that may be
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            if log:
                log.close()
        self._started[role] = time.monotonic()


def _metrics_url(path: Path) -> str | None:
    """The address in the newest line `metrics` of a role's log."""
    if not path.exists():
        return None
    lines = (line for line in reversed(path.read_bytes().splitlines()) if b'"metrics"' in line)
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:  # not written to its end yet
            continue
        if said.get("event") == "metrics" and isinstance(said.get("url"), str):
            return str(said["url"])
    return None
