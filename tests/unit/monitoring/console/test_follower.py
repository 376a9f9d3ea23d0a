"""The console following a real log, embedded and Kafka."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.console_records import FEATURES, SUBJECT, TASK, example, lent, prediction, release
from support.waiting import until

from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.serving.loader import Loader
from tailrace.monitoring.console import follower as module
from tailrace.monitoring.console.follower import Follower
from tailrace.monitoring.console.page import Names, View
from tailrace.monitoring.console.sections import Board
from tailrace.streams.log.base import Log, Topic
from tailrace.streams.log.records import Out
from tailrace.streams.log.url import open_log


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """A log."""
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "kafka":
        url = f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
    opened = open_log(url)
    yield opened
    opened.close()


@pytest.fixture
def names() -> Names:
    """Topics of this test's own."""
    own = secrets.token_hex(4)
    events, predictions, labels, examples, models, dead = (
        f"{own}.{word}" for word in ("events", "predictions", "labels", "examples", "models", "events.dlq")
    )
    return Names(events, predictions, labels, examples, models, (dead,))


def create(log: Log, names: Names) -> None:
    flowing = [Topic(name, 2) for name in (names.events, names.predictions, names.labels, names.examples)]
    log.create([*flowing, Topic(names.models, 1, compacted=True), Topic(names.dead[0], 1)])


def write(log: Log, *outs: Out) -> None:
    writer = log.writer()
    writer.write(outs)
    writer.commit()
    writer.flush()
    writer.close()


class Following:
    """A follower of these topics, and what its board says."""

    def __init__(self, log: Log, names: Names) -> None:
        self._board = Board()
        self._board.viewers = 1
        view = View(SUBJECT._replace(topics=names), lent())
        loader = Loader(ModelSpec(FEATURES, TASK), trusted=TrustedKeys([]))
        groups = {"worker": (f"{names.events}.worker", [names.events])}
        self.follower = Follower(log, names, view, self._board, groups=groups, loader=loader)

    def says(self, section: str) -> Any:
        """A section, decoded; empty before there is one."""
        found = self._board.since().get(section)
        return msgspec.json.decode(found.json) if found else {}


@pytest.fixture
def following(log: Log, names: Names) -> Iterator[Following]:
    """A follower; its topics may not be there yet."""
    following = Following(log, names)
    following.follower.start()
    yield following
    following.follower.close()


def test_it_waits_for_the_topics_and_follows_them(log: Log, names: Names, following: Following) -> None:
    """Before the topics are there the page says so; then what is written is shown, with lag, releases and labels. A
    release that no trusted key signed is told of, and never loaded."""
    until(lambda: "is the pipeline running?" in following.says("verdict").get("text", ""))
    create(log, names)
    write(log, *(Out(names.events, b"k", b"{}") for _ in range(7)))
    write(log, *(Out(names.predictions, p.id.encode(), msgspec.json.encode(p)) for p in map(prediction, range(5))))
    write(log, *(msgspec.structs.replace(out, topic=names.models) for out in release(1)))
    write(log, *(Out(names.examples, e.id.encode(), msgspec.json.encode(e)) for e in map(example, range(5))))
    write(log, Out(names.dead[0], b"k", b"{", (("tailrace.reason", b"invalid_json"),)))
    until(lambda: following.says("letters").get("total") == 1)
    until(lambda: following.says("releases")["champion"] == 1)
    until(lambda: following.says("flow").get("lags") == {"worker": 7})
    until(lambda: len(following.says("tail")["labelled"]) > 0 and len(following.says("tail")["predicted"]) > 0)
    until(lambda: [model["name"] for model in following.says("quality")["models"]] == ["live", "base"])
    until(lambda: following.says("verdict")["state"] == "healthy")


def test_it_skips_to_the_newest_where_it_is_late(
    log: Log, names: Names, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When more comes than it can take, it shows the newest instead of everything, and nothing is held up."""
    monkeypatch.setattr(module, "_LATE", 500)
    monkeypatch.setattr(module, "_READ", 100)
    create(log, names)
    until(lambda: following.says("flow").get("totals") is not None)
    many = [Out(names.predictions, p.id.encode(), msgspec.json.encode(p)) for p in map(prediction, range(8_000))]
    write(log, *many)
    until(lambda: max((int(row["id"]) for row in following.says("tail")["predicted"]), default=0) > 7_900)
