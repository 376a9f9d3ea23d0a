"""Supervisor of the roles: metrics URLs from log files, and cleanup after a failed start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tailrace.app.supervisor import Roles


def test_metrics_urls_come_from_log_files(tmp_path: Path) -> None:
    """The newest complete `metrics` line gives the URL; a role without such a line is left out."""
    roles = Roles("pipeline.py", {}, logs=tmp_path)
    assert roles.metrics_urls() == {}
    line = '{"url": "http://127.0.0.1:%d/metrics", "event": "metrics", "level": "info"}\n'
    (tmp_path / "worker.log").write_text(f'{line % 1}Traceback\n{line % 2}{{"event": "metrics", "url": "http://127')
    (tmp_path / "joiner.log").write_text('{"event": "started", "log": "\\"metrics\\""}\n')
    assert roles.metrics_urls() == {"worker": "http://127.0.0.1:2/metrics"}


def test_metrics_urls_need_log_files(tmp_path: Path) -> None:
    """Roles that log to the terminal have no metrics URLs: asking for them raises ValueError."""
    with pytest.raises(ValueError, match="their ports are in the settings"):
        Roles("pipeline.py", {}).metrics_urls()


def test_a_role_that_cannot_be_started_ends_the_others(tmp_path: Path) -> None:
    """If the second role cannot be started, the first role is stopped."""
    (tmp_path / "joiner.log").mkdir()
    roles = Roles("pipeline.py", {}, logs=tmp_path)
    with pytest.raises(IsADirectoryError), roles:
        pytest.fail("the roles are not entered")
    with pytest.raises(ProcessLookupError):
        os.kill(roles.pid("worker"), 0)
