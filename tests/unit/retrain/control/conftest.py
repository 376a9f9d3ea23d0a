"""Fixtures of the tests of publishing: the retrainer's reader, and a publisher that keeps three releases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.publishing import KEY, TRUSTED

from tailrace.retrain.control.publisher import Publisher
from tailrace.streams.log.base import Reader
from tailrace.streams.log.sqlite.log import SqliteLog


@pytest.fixture
def reader(log: SqliteLog) -> Iterator[Reader]:
    one = log.reader(["examples"], group="retrainer", alone=True)
    yield one
    one.close()


@pytest.fixture
def publisher(log: SqliteLog) -> Iterator[Publisher]:
    one = Publisher(log, "models", "retrainer", TRUSTED, KEY, keep=3)
    yield one
    one.close()
