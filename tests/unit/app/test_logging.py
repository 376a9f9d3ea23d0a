"""Log lines on an stderr that is not a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from tailrace.cli.common import log_to_stderr


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    """Reset the configuration of structlog after the test."""
    yield
    structlog.reset_defaults()


def test_a_line_is_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is JSON on stderr with event, level, time and fields; debug lines are left out and stdout stays empty."""
    log_to_stderr()
    log = structlog.get_logger()
    log.info("swapped", old=1, new=2)
    log.debug("retraining", step=3)
    out, error = capsys.readouterr()
    line = json.loads(error)
    assert (out, line["event"], line["level"], line["old"], line["new"]) == ("", "swapped", "info", 1, 2)
    assert line["timestamp"].endswith("Z")


def test_an_exception_is_logged_without_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception is one line with its traceback, and without the values of local variables."""
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
