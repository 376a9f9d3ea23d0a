"""Checks of the doctor: each defect is detected, and its fix is named."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.shell import TOML, Shell

from tailrace.app.doctor import Check, exit_code
from tailrace.app.pipeline_file import load_pipeline
from tailrace.errors import Exit
from tailrace.inference.releases.signing import create_keys
from tailrace.streams.log.base import Topic
from tailrace.streams.log.records import Out
from tailrace.streams.log.topology import topology


def examine(shell: Shell, *flags: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run `tailrace doctor` and return its exit code and its checks by name."""
    done = shell("doctor", "--json", *flags)
    return done.code, {check["check"]: check for check in done.data}


def create(shell: Shell, **partitions: int) -> None:
    """Create the pipeline's topics with 2 partitions each, except for the counts given in `partitions`."""
    log = shell.log()
    log.create([Topic(f"small.{name}", count) for name, count in partitions.items()])
    log.create(topology(load_pipeline("pipeline.py"), 2))
    log.close()


def test_a_complete_pipeline(shell: Shell) -> None:
    """With keys and topics every check is ok, and the exit code is 0."""
    create_keys(Path(".tailrace/keys"))
    create(shell)
    code, checks = examine(shell)
    assert (code, {check["state"] for check in checks.values()}) == (0, {"ok"})
    expected = ["python", "torch", "device", "disk", "keys", "pipeline", "log", "topics", "partitions", "clock"]
    assert list(checks) == expected


def test_an_empty_directory(shell: Shell) -> None:
    """Missing keys and topics, which `tailrace run` creates, are warnings, not failures."""
    code, checks = examine(shell)
    assert code == 0
    assert {name for name, check in checks.items() if check["state"] == "warning"} == {"keys", "topics"}
    done = shell("doctor")
    assert "fix: `tailrace run` and `tailrace send` create them" in done.out
    assert "0 failed, 2 warnings" in done.error


@pytest.mark.parametrize(("url", "state", "code"), [("memory://models", "ok", 0), ("nosuch://x", "unreachable", 4)])
def test_the_store_of_large_weights(shell: Shell, url: str, state: str, code: int) -> None:
    """A configured store must be reachable; the retrainer also checks that before it trains."""
    (shell.directory / "tailrace.toml").write_text(f'{TOML}[releases]\nstore = "{url}"\n')
    ended, checks = examine(shell)
    assert (ended, checks["store"]["state"]) == (code, state)
    if code:
        done = shell("retrainer")
        assert (done.code, "cannot reach nosuch://x" in done.error) == (code, True)


def test_unequal_partitions(shell: Shell) -> None:
    """Predictions and labels with different numbers of partitions cannot be joined."""
    create(shell, labels=3)
    code, checks = examine(shell)
    assert (code, checks["partitions"]["state"]) == (1, "failed")
    assert "small.predictions 2, small.labels 3" in checks["partitions"]["finding"]
    assert "rekey=True" in checks["partitions"]["fix"]


def test_a_key_that_others_may_read(shell: Shell) -> None:
    """The permissions of the signing key are checked, and the fix is a chmod command."""
    create_keys(Path(".tailrace/keys"))
    Path(".tailrace/keys/signing.pem").chmod(0o640)
    code, checks = examine(shell)
    assert (code, checks["keys"]["state"]) == (1, "failed")
    assert "chmod 600" in checks["keys"]["finding"]


def test_a_signing_key_that_is_not_trusted(shell: Shell) -> None:
    """A signing key that is not trusted fails the check, because workers would refuse its releases."""
    key = create_keys(Path(".tailrace/keys"))
    Path(f".tailrace/keys/trusted/{key.key_id}.pub").unlink()
    assert "is not trusted" in examine(shell)[1]["keys"]["finding"]


def test_a_clock_that_differs(shell: Shell) -> None:
    """A record from the future fails the clock check, because two clocks must differ."""
    create(shell)
    log = shell.log()
    writer = log.writer()
    writer.write([Out("small.models", b"x", b"{}", timestamp=int((time.time() + 3600) * 1000))])
    writer.commit()
    writer.flush()
    writer.close()
    log.close()
    code, checks = examine(shell)
    assert (code, checks["clock"]["state"]) == (1, "failed")
    assert "NTP" in checks["clock"]["fix"]


def test_a_bad_pipeline_file_hides_nothing_else(shell: Shell) -> None:
    """The log is still checked if the pipeline file cannot be loaded."""
    (shell.directory / "pipeline.py").write_text("x = (")
    code, checks = examine(shell)
    assert (code, checks["pipeline"]["state"], checks["log"]["state"]) == (1, "failed", "ok")


def test_a_log_that_cannot_be_reached(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable broker gives exit code 4, and the finding names its address."""
    for module in ("client", "admin"):
        monkeypatch.setattr(f"tailrace.streams.log.kafka.{module}.CONNECT_S", 0.5)  # seconds
    code, checks = examine(shell, "--log", "kafka://127.0.0.1:1")
    assert (code, checks["log"]["state"]) == (4, "unreachable")
    assert "127.0.0.1:1" in checks["log"]["finding"]


def test_an_invalid_log_url(shell: Shell) -> None:
    """An invalid log URL is a failed check."""
    code, checks = examine(shell, "--log", "foo://x")
    assert (code, checks["log"]["state"]) == (1, "failed")


def test_exit_codes() -> None:
    """`unreachable` takes precedence over `failed`; a warning is not a failure."""
    ok, warning, failed = Check("a", "ok", ""), Check("b", "warning", ""), Check("c", "failed", "")
    assert exit_code([ok, warning]) is Exit.OK
    assert exit_code([ok, failed]) is Exit.FAILED
    assert exit_code([failed, Check("d", "unreachable", "")]) is Exit.UNREACHABLE
