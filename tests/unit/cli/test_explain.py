"""`tailrace explain`: the history of an event, read from the topics of the embedded log and of Kafka."""

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
PREDICTION = {"id": "e7", "time": AT, "release": 0, "scores": [0.25], "features": EVENT, "source": [2, 0]}
KEY = SigningKey.generate()


class TopicWriter:
    """Writer of the topics of the small pipeline, in the place of its roles."""

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
        """Write the event and its prediction."""
        self.put("events", EVENT, key=None, partition=2)
        self.put("predictions", PREDICTION)

    def label(self, label: bool, after: float) -> None:
        """Write a label that became known `after` seconds after the event."""
        self.put("labels", {"id": "e7", "label": label, "time": AT + after})

    def joined(self, label: bool, after: float, **more: Any) -> None:
        """Write the example."""
        self.put("examples", {**PREDICTION, "label": label, "label_time": AT + after, **more})

    def read(self, role: str, positions: dict[str, int], watermark: float | None = None) -> None:
        """Commit the positions of a role, which has read the topics up to there."""
        topics = [f"small.{topic}" for topic in positions]
        reader = self.log.reader(topics, group=f"small.{role}", alone=True)
        mark = Bookmark(0, watermark=watermark).text()
        done = {TopicPartition(f"small.{t}", self.at): Committed(at, mark) for t, at in positions.items()}
        with closing(reader), closing(self.log.writer()) as writer:
            writer.commit(done, reader)
            writer.flush()

    def release(self, **fields: Any) -> None:
        """Publish the next release."""
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
def topics(shell: Shell) -> Iterator[TopicWriter]:
    """Writer of the topics that the commands of `shell` read."""
    with closing(shell.log()) as log:
        yield TopicWriter(log)


def test_an_event_is_followed_to_the_release_that_learned_it(shell: Shell, topics: TopicWriter) -> None:
    """The history has event, prediction, release, labels with their verdicts, example, and the first release that
    learned from it."""
    topics.put("events", EVENT, key=None, partition=2)
    topics.release(ranges=[])
    topics.put("predictions", {**PREDICTION, "release": 1})
    topics.put("predictions", {**PREDICTION, "release": 2})
    for label, after in ((True, 60), (True, 60), (False, 90), (True, 4_000)):
        topics.label(label, after)
    topics.joined(True, 60)
    topics.read("joiner", {"predictions": 2, "labels": 4}, AT)
    for end in (0, 1, 2):
        topics.release(ranges=[Range("small.examples", topics.at, 0, end)])
    history = shell("explain", "e7", "--json").data
    assert (history["event"]["place"]["partition"], history["event"]["value"]) == (2, EVENT)
    assert (history["prediction"]["release"], history["prediction"]["scores"]) == (1, [0.25])
    assert (history["release"]["version"], history["release"]["kept"]) == (1, True)
    assert [label["counts"] for label in history["labels"]] == [True, False, False, False]
    assert (history["example"]["label"], history["example"]["label_time"]) == (True, AT + 60)
    assert (history["taught"]["version"], history["taught"]["first"]) == (3, True)
    shown = shell("explain", "e7").out
    assert f"prediction  small.predictions/{topics.at}/0" in shown
    assert "true, known at 2023-11-14 22:14:20; counts: wins=first selects it" in shown
    assert "does not count: it repeats a label that counts" in shown
    assert "does not count: wins=first selects another label" in shown
    assert "does not count: it became known after the window had closed" in shown
    assert "taught      release 3 of " in shown


def test_removed_records_are_reported(shell: Shell, topics: TopicWriter) -> None:
    """If the event, its prediction and the release were removed, the prediction is taken from the example."""
    topics.joined(False, 60, release=4)
    topics.read("retrainer", {"examples": 1})
    shown = shell("explain", "e7").out
    assert "small.events/2/0  -  removed" in shown
    assert "removed; according to the example:  0.25 by release 4" in shown
    assert "4, which was removed: its training data is not known" in shown
    assert "no release: the retrainer has read it, but no kept release has learned it" in shown


@pytest.mark.parametrize(
    ("wins", "after", "labels", "watermark", "verdict"),
    [
        ("first", 60, 0, None, "waits for the joiner"),
        ("last", 60, 1, AT, "waits for the window to close"),
        ("last", 60, 1, AT + 9_000, "was written after the window had closed, or the example was removed"),
        ("last", 9_000, 1, AT, "does not count: it became known after the window had closed"),
    ],
)
def test_a_label_that_has_no_example_yet(
    shell: Shell, topics: TopicWriter, wins: str, after: float, labels: int, watermark: float | None, verdict: str
) -> None:
    """The bookmark of the joiner shows whether a label without an example waits, or arrived too late."""
    (shell.directory / "pipeline.py").write_text(PIPELINE.replace('wait="1h"', f'wait="1h", wins="{wins}"'))
    topics.scored()
    topics.label(True, after)
    topics.read("joiner", {"predictions": 1, "labels": labels}, watermark)
    shown = shell("explain", "e7").out
    assert f"known at {'2023-11-14 22:14:20' if after == 60 else '2023-11-15 00:43:20'}; {verdict}" in shown
    assert "none so far: nothing was learned from the event" in shown


def test_an_implicit_label(shell: Shell, topics: TopicWriter) -> None:
    """An example with an implicit label is marked, and a label that is written later does not count."""
    topics.scored()
    topics.joined(False, 3_600, implicit=True)
    assert "false (implicit: no label arrived), known at 2023-11-14 23:13:20" in shell("explain", "e7").out
    topics.label(True, 60)
    topics.read("joiner", {"predictions": 1, "labels": 1}, AT + 9_000)
    assert "does not count: it was written after the window had closed" in shell("explain", "e7").out


def test_an_event_that_waits_for_its_prediction(shell: Shell, topics: TopicWriter) -> None:
    """An event that was not scored is found by its key, and its label waits for the prediction."""
    topics.put("events", EVENT)
    topics.label(True, 60)
    topics.read("joiner", {"predictions": 0, "labels": 1})
    history = shell("explain", "e7", "--json").data
    assert (history["event"]["value"], history["prediction"], history["release"]) == (EVENT, None, None)
    assert history["labels"][0]["why"] == "waits for the prediction"
    assert "none: the event was not scored yet" in shell("explain", "e7").out


def test_dead_letters_of_the_event_are_shown(shell: Shell, topics: TopicWriter) -> None:
    """A label that became a dead letter is shown with its reason."""
    record = Record("small.labels", 1, 5, 5_000, b"e7", b"{")
    with closing(topics.log.writer()) as writer:
        writer.write([dead_letter(Malformed(record, "invalid_json", "it ends too soon"))])
        writer.commit()
        writer.flush()
    shown = shell("explain", "e7").out
    assert "refused     small.labels/1/5 as small.labels.dlq/0/0  invalid_json: it ends too soon" in shown


def test_an_unknown_id_is_one_line(shell: Shell, topics: TopicWriter) -> None:
    """An unknown id, or a log without the topics, is an error of one line with exit code 1."""
    topics.scored()
    done = shell("explain", "e8")
    assert (done.code, done.out, len(done.error.splitlines())) == (1, "", 1)
    assert "there is no event 'e8' in small.events" in done.error
    done = shell("explain", "e7", "--log", "sqlite:///other.db")
    assert (done.code, len(done.error.splitlines())) == (1, 1)
    assert "there is no topic" in done.error


@pytest.mark.kafka
def test_an_event_is_followed_on_kafka(shell: Shell, kafka_bootstrap: str) -> None:
    """On Kafka the partition of an id is found by the murmur2 hash of Kafka clients."""
    name = f"small-{uuid4().hex[:8]}"
    (shell.directory / "pipeline.py").write_text(PIPELINE.replace('"small"', f'"{name}"'))
    with closing(open_log(f"kafka://{kafka_bootstrap}")) as log:
        log.create(topology(load_pipeline("pipeline.py"), PARTITIONS))
        with closing(log.writer()) as writer:
            write = {
                "predictions": PREDICTION,
                "labels": {"id": "e7", "label": True, "time": AT + 60},
                "examples": {**PREDICTION, "label": True, "label_time": AT + 60},
            }
            writer.write([Out(f"{name}.events", None, json.dumps(EVENT).encode(), partition=2)])
            writer.write([Out(f"{name}.{topic}", b"e7", json.dumps(value).encode()) for topic, value in write.items()])
            writer.commit()
            writer.flush()
    done = shell("explain", "e7", "--json", "--log", f"kafka://{kafka_bootstrap}")
    assert done.code == 0, done.error
    history = done.data
    assert history["event"]["value"] == EVENT
    assert (history["prediction"]["scores"], history["example"]["label"]) == ([0.25], True)
    assert history["untaught"] == "waits for the retrainer's next update or run"
    assert shell("explain", "e8", "--log", f"kafka://{kafka_bootstrap}").code == 1


def learned(version: int, start: int, end: int, updates: Updates | None = None, parent: int | None = None) -> Manifest:
    """Manifest of a release that learned offsets `start` to `end` (exclusive) of partition 1."""
    parent = version - 1 if parent is None else parent
    return replace(manifest(parent), version=version, ranges=[Range("examples", 1, start, end)], updates=updates)


def chain(remembered: int, *counts: int) -> Updates:
    """Chain of updates that began after `remembered` examples, and learned `counts` examples in its updates."""
    remembered_ranges = [Range("examples", 1, 0, remembered)]
    steps = [{1: count} for count in counts]
    return Updates(base=3, seed=0, remembered=remembered_ranges, starts={1: remembered}, learned=steps, plan={})


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
    """The oldest release whose ranges contain the example is named.

    It is known to be the first if its last update or run learned the example, or if the release before still exists.
    """
    kept = [
        learned(9, 0, 30, parent=7),
        learned(7, 0, 25, chain(10, 5, 5, 5)),
        learned(6, 0, 20, chain(10, 5, 5)),
    ]
    taught = learning_step(kept, Place("examples", 1, offset))
    assert taught is not None
    assert (taught.version, taught.how, taught.first) == (version, how, first)


def test_no_release_has_learned_it() -> None:
    """An example behind the ranges of a release, or in another partition, was not learned by it."""
    kept = [learned(7, 0, 25, chain(10, 5, 5, 5))]
    assert learning_step(kept, Place("examples", 1, 25)) is None
    assert learning_step(kept, Place("examples", 0, 5)) is None
