"""Supervisor of the roles as child processes: starts them, restarts them, stops them all.

A role is restarted when a signal has killed it, and when it could not reach the log, after a pause that grows while the
role ends soon after each start. When a role exits by itself for another reason, RoleFailed is raised.
"""

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
from tailrace.monitoring.telemetry.ports import free_port_from
from tailrace.streams.log.backoff import Backoff

ROLES = ("worker", "joiner", "retrainer")
_DRAIN_S = 20.0  # time for a role to finish its batch and leave its group before it is killed
_QUICK_S = 5.0  # a role that ends sooner after its start may well end again
_PAUSES_S = (0.5, 10.0)  # first and longest pause before the restart of such a role
_POLL_S = 0.2
_log = structlog.get_logger(__name__)


class RoleFailed(TailraceError):
    """A role has ended by itself; the message names its exit code. `code`: exit status, negative for a signal."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = Exit(code) if code in Exit.__members__.values() else Exit.FAILED


class Roles:
    """Worker, joiner and retrainer of one pipeline as child processes; a context manager.

    `environment` is added to that of this process; `ports` maps roles to their monitoring ports on `host`, which they
    leave for the next free ones where they are taken. With the directory `logs`, the output of a role is appended to
    `<logs>/<role>.log`.
    """

    def __init__(
        self,
        reference: str,
        environment: Mapping[str, str],
        *,
        ports: Mapping[str, int] | None = None,
        host: str = "127.0.0.1",
        logs: Path | None = None,
        roles: Sequence[str] = ROLES,
    ) -> None:
        self._reference, self._logs, self._roles = reference, logs, roles
        self.ports = dict(ports or {})
        """The monitoring port of each role; 0 for any free one."""
        self._host = host
        self._environment = {**os.environ, **environment}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._backoffs = {role: Backoff(*_PAUSES_S) for role in roles}
        self._due: dict[str, float] = {}  # time.monotonic() of the restart of a role that has ended

    def __enter__(self) -> Roles:
        try:
            for role in self._roles:
                self._start(role)
        except BaseException:  # `__exit__` is not called after an error here, so running roles would stay
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def pid(self, role: str) -> int:
        """Return the process id of a role."""
        return self._children[role].pid

    def metrics_urls(self) -> dict[str, str]:
        """Return the metrics URL of each role, from the newest `metrics` line of its log file.

        Roles without such a line are left out. Raise ValueError without log files.
        """
        if self._logs is None:
            raise ValueError(
                "metrics URLs are read from log files, and these roles have none: their ports are in the settings"
            )
        urls = {role: _metrics_url(self._logs / f"{role}.log") for role in self._roles}
        return {role: url for role, url in urls.items() if url is not None}

    def check(self) -> None:
        """Restart roles that a signal has killed, or that could not reach the log. Raises RoleFailed for others."""
        for role, child in self._children.items():
            code = child.poll()
            if code is None:
                continue
            if role not in self._due:
                self._due[role] = time.monotonic() + self._pause(role, code)
            if time.monotonic() >= self._due[role]:
                del self._due[role]
                self._start(role)

    def _pause(self, role: str, code: int) -> float:
        """Return the seconds until the restart of a role that ended with this exit code. Raises RoleFailed."""
        if code >= 0 and code != Exit.UNREACHABLE:
            where = f": see {self._logs / f'{role}.log'}" if self._logs else ""
            raise RoleFailed(f"the {role} ended with exit code {code}{where}", code)
        backoff = self._backoffs[role]
        quick = time.monotonic() - self._started[role] < _QUICK_S
        if not quick:
            backoff.reset()
        pause = backoff.pause() if quick else 0.0
        why = signal.Signals(-code).name if code < 0 else "the log cannot be reached"
        _log.warning("restarting a role", role=role, why=why, in_s=pause)
        return pause

    def supervise(self, stop: threading.Event) -> None:
        """Call `check` periodically until `stop` is set. Raises RoleFailed."""
        while not stop.wait(_POLL_S):
            self.check()

    def stop(self) -> None:
        """Stop all roles: SIGTERM, then SIGKILL for a role that has not ended after 20 s."""
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _DRAIN_S
        for role, child in self._children.items():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("role did not stop in time, killing it", role=role, seconds=_DRAIN_S)
                child.kill()
                child.wait()
            if child.stdin:
                child.stdin.close()

    def _start(self, role: str) -> None:
        command = [sys.executable, "-m", "tailrace", role, "--until-eof", "--pipeline", self._reference]
        log: IO[bytes] | None = open(self._logs / f"{role}.log", "ab") if self._logs else None  # noqa: SIM115
        try:
            port = {"TAILRACE_MONITORING__PORT": str(self._port(role))} if role in self.ports else {}
            self._children[role] = subprocess.Popen(
                command,
                env={**self._environment, **port},
                stdin=subprocess.PIPE,  # its end stops the role, however this process dies
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            if log:
                log.close()
        self._started[role] = time.monotonic()

    def _port(self, role: str) -> int:
        """Return the monitoring port of a role that is about to start: its own, or the next free one, and log that."""
        wanted, others = self.ports[role], {port for other, port in self.ports.items() if other != role}
        if wanted:
            self.ports[role] = free_port_from(self._host, wanted, others)
        if self.ports[role] != wanted:
            _log.warning("a monitoring port is taken", role=role, port=wanted, instead=self.ports[role])
        return self.ports[role]


def _metrics_url(path: Path) -> str | None:
    """Return the URL in the newest `metrics` line of a log file; None if there is no such line."""
    if not path.exists():
        return None
    lines = (line for line in reversed(path.read_bytes().splitlines()) if b'"metrics"' in line)
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the role is still writing this line
            continue
        if entry.get("event") == "metrics" and isinstance(entry.get("url"), str):
            return str(entry["url"])
    return None
