"""The follower of the console on a real log, embedded and Kafka."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.console_records import example, people, prediction, release
from support.waiting import until

from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.serving.loader import Loader
from tailrace.monitoring.console import follower as module
from tailrace.monitoring.console.follower import ConsoleFollower
from tailrace.monitoring.console.page import ConsolePage
from tailrace.monitoring.console.sections import PageSections
from tailrace.streams.log.base import Log, Topic
from tailrace.streams.log.dead_letters import dead_letter_topic
from tailrace.streams.log.records import Out
from tailrace.streams.log.url import open_log


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """An empty embedded log, or the shared Kafka."""
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "kafka":
        url = f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
    opened = open_log(url)
    yield opened
    opened.close()


@pytest.fixture
def pipeline() -> Pipeline:
    """A pipeline with topics of this test's own."""
    own = secrets.token_hex(4)
    return people(topics={name: f"{own}.{name}" for name in ("events", "predictions", "labels", "examples", "models")})


def create(log: Log, pipeline: Pipeline) -> None:
    """Create the topics of a pipeline and their dead-letter topics."""
    topics = pipeline.topics
    flowing = [Topic(name, 2) for name in (topics.events, topics.predictions, topics.labels, topics.examples)]
    dead = [Topic(dead_letter_topic(name), 1) for name in pipeline.read_topics()]
    log.create([*flowing, Topic(topics.models, 1, compacted=True), *dead])


def write(log: Log, *outs: Out) -> None:
    """Write records in one transaction."""
    writer = log.writer()
    writer.write(outs)
    writer.commit()
    writer.flush()
    writer.close()


class Followed:
    """A follower of a pipeline's topics, and the sections that it fills."""

    def __init__(self, log: Log, pipeline: Pipeline) -> None:
        self._sections = PageSections()
        self._sections.viewers = 1
        events = pipeline.topics.events
        self.follower = ConsoleFollower(
            log,
            pipeline,
            ConsolePage(pipeline),
            self._sections,
            groups={"worker": (f"{events}.worker", [events])},
            loader=Loader(ModelSpec.of(pipeline), trusted=TrustedKeys([])),
        )

    def section(self, name: str) -> Any:
        """A section, decoded; empty before it was filled."""
        section = self._sections.since().get(name)
        return msgspec.json.decode(section.json) if section else {}


@pytest.fixture
def followed(log: Log, pipeline: Pipeline) -> Iterator[Followed]:
    """A running follower, whose topics need not exist yet."""
    followed = Followed(log, pipeline)
    followed.follower.start()
    yield followed
    followed.follower.close()


def test_it_waits_for_the_topics_and_follows_them(log: Log, pipeline: Pipeline, followed: Followed) -> None:
    """The page names missing topics, then shows records, lag, releases and labels. A release without a trusted
    signature is shown and never loaded."""
    until(lambda: "is the pipeline running?" in followed.section("status").get("text", ""))
    create(log, pipeline)
    topics = pipeline.topics
    write(log, *(Out(topics.events, b"k", b"{}") for _ in range(7)))
    write(log, *(Out(topics.predictions, p.id.encode(), msgspec.json.encode(p)) for p in map(prediction, range(5))))
    write(log, *(msgspec.structs.replace(out, topic=topics.models) for out in release(1)))
    write(log, *(Out(topics.examples, e.id.encode(), msgspec.json.encode(e)) for e in map(example, range(5))))
    write(log, Out(dead_letter_topic(topics.events), b"k", b"{", (("tailrace.reason", b"invalid_json"),)))
    until(lambda: followed.section("dead_letters").get("total") == 1)
    until(lambda: followed.section("releases")["champion"] == 1)
    until(lambda: followed.section("flow").get("lags") == {"worker": 7})
    until(lambda: len(followed.section("tail")["labelled"]) > 0 and len(followed.section("tail")["predicted"]) > 0)
    until(lambda: [model["name"] for model in followed.section("quality")["models"]] == ["live", "base"])
    until(lambda: followed.section("status")["state"] == "healthy")


def test_it_skips_to_the_newest_where_it_is_late(
    log: Log, pipeline: Pipeline, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If more comes than the follower can read, the page shows the newest records instead of all of them."""
    monkeypatch.setattr(module, "_SKIP_BEYOND", 500)
    monkeypatch.setattr(module, "_READ", 100)
    create(log, pipeline)
    until(lambda: followed.section("flow").get("totals") is not None)
    many = map(prediction, range(8_000))
    write(log, *(Out(pipeline.topics.predictions, p.id.encode(), msgspec.json.encode(p)) for p in many))
    until(lambda: max((int(row["id"]) for row in followed.section("tail")["predicted"]), default=0) > 7_900)
