"""Addresses of logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import unmeasured

from tailrace.streams.log.base import LogError, Topic
from tailrace.streams.log.url import BadUrl, open_log


def test_a_relative_path_has_three_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///x.db names a file in the working directory."""
    monkeypatch.chdir(tmp_path)
    open_log("sqlite:///x.db").close()
    assert (tmp_path / "x.db").exists()


def test_an_absolute_path_has_four_slashes(tmp_path: Path) -> None:
    """sqlite:////dir/x.db is an absolute path; escapes such as %20 are decoded."""
    open_log(f"sqlite:///{tmp_path}/my%20log.db").close()
    assert (tmp_path / "my log.db").exists()


def test_query_parameters_are_options(tmp_path: Path) -> None:
    """A log opened with an option in its URL works."""
    log = open_log(f"sqlite:///{tmp_path}/x.db?synchronous=full")
    log.create([Topic("events", 3)])
    assert log.topics() == {"events": 3}
    log.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "flights.db",
        "postgres://host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/x.db",
        "sqlite:///x.db?sync=full",
        "sqlite:///x.db?synchronous=never",
        "sqlite:///x.db?synchronous",
        "kafka://",
        "kafka://host",
        "kafka://host:port",
        "kafka://host:9092,other",
        "kafka://host:99999",
        "kafka://host:9092/topic",
        "kafka://[::1:9092",
    ],
)
def test_a_bad_address_names_the_good_forms(url: str) -> None:
    """A string that is not an address is refused at once; the message shows the valid forms."""
    with pytest.raises(BadUrl, match=r"sqlite:///|kafka://|synchronous") as caught:
        open_log(url)
    assert isinstance(caught.value, LogError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("url", ["me:hidden@host:9092", "me:hidden@host", "host:9092?sasl.password=hidden"])
def test_a_password_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    """Secrets in an address are refused, because addresses are logged; the message does not show them."""
    with pytest.raises(BadUrl) as caught:
        open_log(f"kafka://{url}")
    assert "hidden" not in str(caught.value)


def test_kafka_is_not_asked_before_it_is_used() -> None:
    """Opening a Kafka log connects to nothing, so it cannot fail or wait."""
    open_log("kafka://127.0.0.1:1,127.0.0.1:2").close()


def test_drivers_are_imported_when_needed() -> None:
    """Neither driver's library is loaded by importing the module that chooses between them."""
    code = "import sys, tailrace.streams.log.url; print({'confluent_kafka', 'kafka', 'sqlite3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=unmeasured(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
