"""Assembled console on a real log: the command before the pipeline has data and while it has some."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from support.shell import Shell
from support.waiting import PATIENCE_S, until

from tailrace.app.console import served
from tailrace.app.settings import ConsoleSettings
from tailrace.inference.releases.signing import create_keys


def test_the_console_waits_for_a_pipeline(shell: Shell) -> None:
    """`tailrace console` names missing topics, fills the page when data arrives, and exits with 0 on SIGTERM."""
    create_keys(shell.directory / ".tailrace" / "keys")
    command = [sys.executable, "-m", "tailrace", "console", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=shell.directory) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        until(lambda: "there is no topic" in state(url).get("status", {}).get("text", ""))
        assert shell("send", shell.data(40)).code == 0
        until(lambda: state(url).get("flow", {}).get("totals", {}).get("events") == 40)
        assert "40 events wait, none was predicted yet" in state(url)["status"]["text"]
        assert state(url)["about"]["writable"] is False
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def state(url: str) -> dict[str, Any]:
    """Fetch all sections of the page."""
    with urllib.request.urlopen(f"{url}api/state", timeout=20) as answer:
        sections: dict[str, Any] = json.load(answer)
    return sections


def test_a_taken_port_is_an_error_or_replaced(shell: Shell) -> None:
    """`tailrace console` fails on a taken port; the console of a demo or a run takes any free port instead."""
    with served(ConsoleSettings(port=0)) as (_, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        refused = shell("console", "--port", str(port))
        assert (refused.code, refused.out) == (1, "")
        assert "set console.port to a free port" in refused.error
        with served(ConsoleSettings(port=port), elsewhere=True) as (_, other):
            assert other != url
            assert state(other)["about"]["writable"] is False


def test_the_token_is_never_shown(shell: Shell, tmp_path: Path) -> None:
    """`config show` prints the name of the token file, not the token."""
    (tmp_path / "token").write_text("sixteen or more of them")
    os.environ["TAILRACE_CONSOLE__TOKEN_FILE"] = "token"
    try:
        shown = shell("config", "show", "--json")
    finally:
        del os.environ["TAILRACE_CONSOLE__TOKEN_FILE"]
    assert shown.code == 0
    assert "sixteen" not in shown.out
