"""One suite, both logs: every test that asks for `place` runs on the embedded log and on Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.log_place import Place

from tailrace.streams.log.sqlite.log import SqliteLog


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A fresh log, or fresh names on a shared one."""
    if request.param == "sqlite":
        place = Place(f"sqlite:///{tmp_path}/log.db", SqliteLog(tmp_path / "log.db"))
    else:
        from tailrace.streams.log.kafka.log import KafkaLog

        bootstrap = request.getfixturevalue("kafka_bootstrap")
        place = Place(f"kafka://{bootstrap}", KafkaLog(bootstrap))
    with place.stack:
        place.kept(place.log)
        yield place
