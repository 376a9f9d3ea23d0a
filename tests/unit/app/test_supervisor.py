"""What the roles' log files tell of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tailrace.app.supervisor import Roles


def test_roles_tell_where_their_metrics_are(tmp_path: Path) -> None:
    """The newest whole line counts; a role that has not said so yet is left out, and so is what is no such line."""
    roles = Roles("pipeline.py", {}, logs=tmp_path)
    assert roles.metrics_urls() == {}
    said = '{"url": "http://127.0.0.1:%d/metrics", "event": "metrics", "level": "info"}\n'
    (tmp_path / "worker.log").write_text(f'{said % 1}Traceback\n{said % 2}{{"event": "metrics", "url": "http://127')
    (tmp_path / "joiner.log").write_text('{"event": "started", "log": "\\"metrics\\""}\n')
    assert roles.metrics_urls() == {"worker": "http://127.0.0.1:2/metrics"}


def test_roles_without_log_files_tell_nothing(tmp_path: Path) -> None:
    """Asking roles that log to the terminal is a mistake, which is told."""
    with pytest.raises(ValueError, match="their ports are in the settings"):
        Roles("pipeline.py", {}).metrics_urls()


def test_a_role_that_cannot_be_started_ends_the_others(tmp_path: Path) -> None:
    """When starting the second role fails, the first, which runs already, has ended."""
    (tmp_path / "joiner.log").mkdir()
    roles = Roles("pipeline.py", {}, logs=tmp_path)
    with pytest.raises(IsADirectoryError), roles:
        pytest.fail("the roles are not entered")
    with pytest.raises(ProcessLookupError):
        os.kill(roles.pid("worker"), 0)
