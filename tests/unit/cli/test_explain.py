"""`tailrace explain`: one event, followed through the topics of either log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from support.publishing import PAYLOAD, manifest, report
from support.shell import PIPELINE, Shell

from tailrace.app.pipeline_file import load_pipeline
from tailrace.explain.event_history import Place, learning_step
from tailrace.inference.releases.manifest import Manifest, Range, Updates
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.retrain.control.publisher import Publisher
from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.log.base import Committed, Log, TopicPartition
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log

AT, PARTITIONS = 1_700_000_000.0, 3
EVENT = {"id": "e7", "at": AT, "x": 1.5}
SAID = {"id": "e7", "time": AT, "release": 0, "scores": [0.25], "features": EVENT, "source": [2, 0]}
KEY = SigningKey.generate()


class Topics:
    """The topics of the small pipeline, written by hand."""

    def __init__(self, log: Log) -> None:
        self.log = log
        log.create(topology(load_pipeline("pipeline.py"), PARTITIONS))
        self.at = log.partition_of("small.predictions", b"e7").partition

    def put(
        self, topic: str, value: dict[str, Any], *, key: bytes | None = b"e7", partition: int | None = None
    ) -> None:
        """Write one record."""
        with closing(self.log.writer()) as writer:
            writer.write([Out(f"small.{topic}", key, json.dumps(value).encode(), partition=partition)])
            writer.commit()
            writer.flush()

    def scored(self) -> None:
        """The event and its prediction."""
        self.put("events", EVENT, key=None, partition=2)
        self.put("predictions", SAID)

    def label(self, label: bool, after: float) -> None:
        """A label that became known so many seconds after the event."""
        self.put("labels", {"id": "e7", "label": label, "time": AT + after})

    def joined(self, label: bool, after: float, **more: Any) -> None:
        """The example."""
        self.put("examples", {**SAID, "label": label, "label_time": AT + after, **more})

    def read(self, role: str, positions: dict[str, int], watermark: float | None = None) -> None:
        """A role has read its topics so far."""
        topics = [f"small.{topic}" for topic in positions]
        reader = self.log.reader(topics, group=f"small.{role}", alone=True)
        mark = Bookmark(0, watermark=watermark).text()
        done = {TopicPartition(f"small.{t}", self.at): Committed(at, mark) for t, at in positions.items()}
        with closing(reader), closing(self.log.writer()) as writer:
            writer.commit(done, reader)
            writer.flush()

    def release(self, **fields: Any) -> None:
        """The next release."""
        trusted = TrustedKeys([KEY.public_pem()])
        publisher = Publisher(self.log, "small.models", "small-retrainer", trusted, KEY)
        examples = TopicPartition("small.examples", self.at)
        reader = self.log.reader(["small.examples"], group="small.retrainer", alone=True)
        with closing(publisher), closing(reader):
            parent = publisher.models.champion
            publisher.publish(
                replace(manifest(parent), **fields), PAYLOAD, report(parent), {examples: Committed(0)}, reader
            )


@pytest.fixture
def topics(shell: Shell) -> Iterator[Topics]:
    """The topics that the commands of `shell` see."""
    with closing(shell.log()) as log:
        yield Topics(log)


def test_an_event_is_followed_to_the_release_that_it_taught(shell: Shell, topics: Topics) -> None:
    """Event, prediction, release, each label with whether it counts, example, and the first release that learned it."""
    topics.put("events", EVENT, key=None, partition=2)
    topics.release(ranges=[])
    topics.put("predictions", {**SAID, "release": 1})
    topics.put("predictions", {**SAID, "release": 2})
    for label, after in ((True, 60), (True, 60), (False, 90), (True, 4_000)):
        topics.label(label, after)
    topics.joined(True, 60)
    topics.read("joiner", {"predictions": 2, "labels": 4}, AT)
    for end in (0, 1, 2):
        topics.release(ranges=[Range("small.examples", topics.at, 0, end)])
    told = shell("explain", "e7", "--json").data
    assert (told["event"]["place"]["partition"], told["event"]["value"]) == (2, EVENT)
    assert (told["prediction"]["release"], told["prediction"]["scores"]) == (1, [0.25])
    assert (told["release"]["version"], told["release"]["kept"]) == (1, True)
    assert [label["counts"] for label in told["labels"]] == [True, False, False, False]
    assert (told["example"]["label"], told["example"]["label_time"]) == (True, AT + 60)
    assert (told["taught"]["version"], told["taught"]["first"]) == (3, True)
    shown = shell("explain", "e7").out
    assert f"prediction  small.predictions/{topics.at}/0" in shown
    assert "true, known at 2023-11-14 22:14:20; counts: wins=first selects it" in shown
    assert "does not count: it repeats a label that counts" in shown
    assert "does not count: wins=first selects another label" in shown
    assert "does not count: it became known after the window had closed" in shown
    assert "taught      release 3 of " in shown


def test_what_was_removed_is_said(shell: Shell, topics: Topics) -> None:
    """The release that scored, the event and the prediction may be gone: the example tells what was predicted."""
    topics.joined(False, 60, release=4)
    topics.read("retrainer", {"examples": 1})
    shown = shell("explain", "e7").out
    assert "small.events/2/0  -  it was removed since" in shown
    assert "it was removed since; its example tells:  0.25 by release 4" in shown
    assert "4, which was removed since" in shown
    assert "no release: the retrainer has read it, but no kept release has learned it" in shown


@pytest.mark.parametrize(
    ("wins", "after", "labels", "watermark", "said"),
    [
        ("first", 60, 0, None, "waits for the joiner"),
        ("last", 60, 1, AT, "waits for the window to close"),
        ("last", 60, 1, AT + 9_000, "was written after the window had closed, or the example was removed"),
        ("last", 9_000, 1, AT, "does not count: it became known after the window had closed"),
    ],
)
def test_a_label_that_has_no_example_yet(
    shell: Shell, topics: Topics, wins: str, after: float, labels: int, watermark: float | None, said: str
) -> None:
    """It waits, or came too late: the joiner's own bookmark tells."""
    (shell.directory / "pipeline.py").write_text(PIPELINE.replace('wait="1h"', f'wait="1h", wins="{wins}"'))
    topics.scored()
    topics.label(True, after)
    topics.read("joiner", {"predictions": 1, "labels": labels}, watermark)
    shown = shell("explain", "e7").out
    assert f"known at {'2023-11-14 22:14:20' if after == 60 else '2023-11-15 00:43:20'}; {said}" in shown
    assert "none so far: nothing was learned from it" in shown


def test_an_implicit_label(shell: Shell, topics: Topics) -> None:
    """Where no label came the example says so, and a label written later does not count."""
    topics.scored()
    topics.joined(False, 3_600, implicit=True)
    assert "false, as no label came, known at 2023-11-14 23:13:20" in shell("explain", "e7").out
    topics.label(True, 60)
    topics.read("joiner", {"predictions": 1, "labels": 1}, AT + 9_000)
    assert "does not count: it was written after the window had closed" in shell("explain", "e7").out


def test_an_event_that_waits_for_its_prediction(shell: Shell, topics: Topics) -> None:
    """It is found where its key lies, and a label that came before it waits too."""
    topics.put("events", EVENT)
    topics.label(True, 60)
    topics.read("joiner", {"predictions": 0, "labels": 1})
    told = shell("explain", "e7", "--json").data
    assert (told["event"]["value"], told["prediction"], told["release"]) == (EVENT, None, None)
    assert told["labels"][0]["why"] == "waits for the prediction"
    assert "none: it was not scored yet" in shell("explain", "e7").out


def test_refused_records_are_shown(shell: Shell, topics: Topics) -> None:
    """A label that became a dead letter is named with its reason."""
    record = Record("small.labels", 1, 5, 5_000, b"e7", b"{")
    with closing(topics.log.writer()) as writer:
        writer.write([dead_letter(Malformed(record, "invalid_json", "it ends too soon"))])
        writer.commit()
        writer.flush()
    shown = shell("explain", "e7").out
    assert "refused     small.labels/1/5 as small.labels.dlq/0/0  invalid_json: it ends too soon" in shown


def test_an_id_that_is_nowhere_is_one_line(shell: Shell, topics: Topics) -> None:
    """Exit code 1, and where to look; so where there are no topics."""
    topics.scored()
    done = shell("explain", "e8")
    assert (done.code, done.out, len(done.error.splitlines())) == (1, "", 1)
    assert "there is no event 'e8' in small.events" in done.error
    done = shell("explain", "e7", "--log", "sqlite:///other.db")
    assert (done.code, len(done.error.splitlines())) == (1, 1)
    assert "there is no topic" in done.error


@pytest.mark.kafka
def test_an_event_is_followed_on_kafka(shell: Shell, kafka_bootstrap: str) -> None:
    """Where murmur2 puts its id, as every Kafka client does."""
    name = f"small-{uuid4().hex[:8]}"
    (shell.directory / "pipeline.py").write_text(PIPELINE.replace('"small"', f'"{name}"'))
    with closing(open_log(f"kafka://{kafka_bootstrap}")) as log:
        log.create(topology(load_pipeline("pipeline.py"), PARTITIONS))
        with closing(log.writer()) as writer:
            write = {
                "predictions": SAID,
                "labels": {"id": "e7", "label": True, "time": AT + 60},
                "examples": {**SAID, "label": True, "label_time": AT + 60},
            }
            writer.write([Out(f"{name}.events", None, json.dumps(EVENT).encode(), partition=2)])
            writer.write([Out(f"{name}.{topic}", b"e7", json.dumps(value).encode()) for topic, value in write.items()])
            writer.commit()
            writer.flush()
    done = shell("explain", "e7", "--json", "--log", f"kafka://{kafka_bootstrap}")
    assert done.code == 0, done.error
    told = done.data
    assert told["event"]["value"] == EVENT
    assert (told["prediction"]["scores"], told["example"]["label"]) == ([0.25], True)
    assert told["untaught"] == "waits for the retrainer's next update or run"
    assert shell("explain", "e8", "--log", f"kafka://{kafka_bootstrap}").code == 1


def made(version: int, start: int, end: int, updates: Updates | None = None, parent: int | None = None) -> Manifest:
    """A release that learned these offsets of partition 1."""
    parent = version - 1 if parent is None else parent
    return replace(manifest(parent), version=version, ranges=[Range("examples", 1, start, end)], updates=updates)


def chain(remembered: int, *counts: int) -> Updates:
    """Updates that began behind what was remembered, and learned so many each."""
    memory = [Range("examples", 1, 0, remembered)]
    learned = [{1: count} for count in counts]
    return Updates(base=3, seed=0, remembered=memory, starts={1: remembered}, learned=learned, plan={})


@pytest.mark.parametrize(
    ("offset", "version", "how", "first"),
    [
        (5, 6, "from the replay buffer with which its chain of updates began", False),
        (12, 6, "in update 1 of 2 of its chain", False),
        (18, 6, "in update 2 of 2 of its chain", True),
        (22, 7, "in update 3 of 3 of its chain", True),
        (28, 9, "in a run", True),
    ],
)
def test_the_release_that_learned_an_example(offset: int, version: int, how: str, first: bool) -> None:
    """The oldest whose ranges hold it; whether that was the first is known when its own last step learned it, or the
    release before is still there."""
    kept = [
        made(9, 0, 30, parent=7),
        made(7, 0, 25, chain(10, 5, 5, 5)),
        made(6, 0, 20, chain(10, 5, 5)),
    ]
    found = learning_step(kept, Place("examples", 1, offset))
    assert found is not None
    assert (found.version, found.how, found.first) == (version, how, first)


def test_no_release_has_learned_it() -> None:
    """Neither behind the ranges, nor in another partition."""
    kept = [made(7, 0, 25, chain(10, 5, 5, 5))]
    assert learning_step(kept, Place("examples", 1, 25)) is None
    assert learning_step(kept, Place("examples", 0, 5)) is None
