"""What log lines look like where nobody reads them on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from tailrace.cli.common import log_to_stderr


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    """Leaves logging as it was."""
    yield
    structlog.reset_defaults()


def test_a_line_is_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """The event, its level, its time and its fields; details for debugging are left out; stdout is for data."""
    log_to_stderr()
    log = structlog.get_logger()
    log.info("swapped", old=1, new=2)
    log.debug("retraining", step=3)
    out, error = capsys.readouterr()
    line = json.loads(error)
    assert (out, line["event"], line["level"], line["old"], line["new"]) == ("", "swapped", "info", 1, 2)
    assert line["timestamp"].endswith("Z")


def test_an_exception_is_told_with_its_traceback_but_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, whatever happened; local variables stay where they are."""
    log_to_stderr()
    private = "somebody's address"
    try:
        raise ValueError("it went wrong")
    except ValueError:
        structlog.get_logger().exception("following failed", topic="a.models")
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "following failed"
    assert "ValueError: it went wrong" in line["exception"]
    assert private not in line["exception"]
