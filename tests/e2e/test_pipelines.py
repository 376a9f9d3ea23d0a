"""What a declaration may say, end to end on the embedded log, with all roles in threads of this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import declared
import prometheus_client  # noqa: F401  (roles in threads, importing it at the same time, would find it half made)
import pytest
from waiting import PATIENCE_S

from tailrace.app.factory import create_topics, open_configured_log, signing_key, trusted_keys
from tailrace.app.roles import run_joiner, run_retrainer, run_worker
from tailrace.app.settings import KeysSettings, LogSettings, MonitoringSettings, Settings, WorkerSettings
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.releases.manifest import Manifest
from tailrace.retrain.control.publisher import Models
from tailrace.streams.log.base import Topic
from tailrace.streams.log.records import Out, Record

START, EVENTS = 1_700_000_000.0, 200
CLOSED = 170  # of those events, a minute apart: so many windows of ten minutes have closed, in three partitions
Role: TypeAlias = Callable[[Pipeline, Settings, threading.Event], None]
JOINING: tuple[Role, ...] = (run_worker, run_joiner)
ALL: tuple[Role, ...] = (*JOINING, run_retrainer)


def x(n: int) -> float:
    """What event n measures: spread evenly between -1 and 1."""
    return (n * 37 % 100 - 49.5) / 50


class World:
    """A declared pipeline, its log and its roles."""

    def __init__(self, directory: Path, name: str, **options: Any) -> None:
        self.pipeline: Pipeline = getattr(declared, name)
        self.settings = Settings(
            pipeline=f"declared:{name}",
            log=LogSettings(url=f"sqlite:///{directory}/log.db", partitions=3),
            keys=KeysSettings(directory=directory / "keys"),
            monitoring=MonitoringSettings(enabled=False),
            **options,
        )
        self.log = open_configured_log(self.settings)
        self._stop, self._threads = threading.Event(), list[threading.Thread]()
        self._failures: list[BaseException] = []

    def start(self, roles: Iterable[Role]) -> None:
        """Start roles; `close` ends them."""
        create_topics(self.log, self.pipeline, self.settings)
        signing_key(self.settings)
        self._threads = [threading.Thread(target=self._run, args=(role,)) for role in roles]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drain all roles."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self.log.close()

    def send(self, *answers: tuple[int, Any, float], events: range = range(EVENTS), key: str | None = None) -> None:
        """Events a minute apart, and labels: (event, what it says, how many seconds later). They lie in the log before
        the events, so that no window closes before they are read. Labels have the event for key, or `key`."""
        topics, fields = self.pipeline.topics, self.pipeline.label.fields
        names = [fields.get(name, name) for name in ("id", "label", "time")]
        labels = [dict(zip(names, (str(n), says, START + 60 * n + after), strict=True)) for n, says, after in answers]
        rows = [{"id": str(n), "at": START + 60 * n, "x": x(n), "colour": "red"} for n in events]
        writer = self.log.writer()
        keyed = ((key or label[names[0]], label) for label in labels)
        writer.write([Out(topics.labels, by.encode(), json.dumps(label).encode()) for by, label in keyed])
        writer.write([Out(topics.events, None, json.dumps(row).encode()) for row in rows])
        writer.commit()
        writer.close()

    def records(self, topic: str) -> list[Record]:
        """All records of a topic."""
        ends = self.log.end_positions(topic)
        return [record for at, end in ends.items() for batch in self.log.scan(at, 0, end) for record in batch]

    def read(self, topic: str, least: int) -> dict[int, dict[str, Any]]:
        """The values of a topic by their event, each there once, as soon as there are `least`."""
        self._until(lambda: len(self.records(topic)) >= least)
        values = [json.loads(record.value or b"") for record in self.records(topic)]
        found = {int(value["id"]): value for value in values}
        assert len(found) == len(values)
        return found

    def release(self) -> Manifest:
        """The release of a run, verified; before and after it come those of online updates."""
        models, found = Models(self.log, self.pipeline.topics.models), list[int]()

        def published() -> bool:
            models.refresh()
            found.extend(v for v in models.registry.releases if models.manifest(v).updates is None)
            return bool(found)

        self._until(published)
        return models.verified(found[0], trusted_keys(self.settings))[0]

    def said_since(self, version: int) -> tuple[int, list[float]]:
        """A new event and its scores: events are sent one by one until that release, or a newer one, scores one."""
        n, release, scores = EVENTS - 1, 0, list[float]()
        while release < version:
            n += 1
            self.send(events=range(n, n + 1))
            said = self.read("rows.predictions", n + 1)[n]
            release, scores = said["release"], said["scores"]
        return n, scores

    def _until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            if self._failures:
                raise self._failures[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _run(self, role: Role) -> None:
        try:
            role(self.pipeline, self.settings, self._stop)
        except BaseException as error:
            self._failures.append(error)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds that end with the test."""
    with ExitStack() as stack:

        def make(name: str, **options: Any) -> World:
            made = World(tmp_path, name, **options)
            stack.callback(made.close)
            return made

        yield make


def test_functions_of_the_event_are_scored_carried_and_trained_on(world: Callable[..., World]) -> None:
    """Of a @feature, prediction, example and the network's own columns hold the same value. The events
    topic has other partitions than the rest, the worker delivers at least once, and nothing minds."""
    rows = world("plain", worker=WorkerSettings(delivery="at_least_once"))
    rows.log.create([Topic(rows.pipeline.topics.events, 5)])
    rows.start(ALL)
    rows.send(*((n, x(n) ** 2 > 0.3, 60.0) for n in range(EVENTS)))
    predictions = rows.read("rows.predictions", EVENTS)
    examples = rows.read("rows.examples", EVENTS)
    assert {x(n) ** 2 for n in range(EVENTS)} == {row["derived"][0] for row in predictions.values()}
    assert all(examples[n]["derived"] == predictions[n]["derived"] for n in range(EVENTS))
    assert (rows.log.partitions("rows.events"), rows.log.partitions("rows.predictions")) == (5, 3)
    assert (rows.release().metrics["candidate"]["log_loss"] or 1.0) < 0.5


def test_labels_keyed_and_named_otherwise_teach_a_users_own_network(world: Callable[..., World]) -> None:
    """The labels topic came first, with two partitions and foreign keys; the joiner keys it anew, the network is the
    user's, and learns from the function that it alone looks at."""
    rows = world("rekeyed")
    rows.log.create([Topic(rows.pipeline.topics.labels, 2)])
    rows.start(ALL)
    rows.send(*((n, x(n) ** 2 > 0.3, 60.0) for n in range(EVENTS)), (0, "perhaps", 90.0), key="somebody else's")
    examples = rows.read("rows.examples", EVENTS)
    assert {n: example["label"] for n, example in examples.items()} == {n: x(n) ** 2 > 0.3 for n in range(EVENTS)}
    made = rows.release()
    assert sorted(tensor.name for tensor in made.tensors) == ["layer.bias", "layer.weight"]
    assert (made.metrics["candidate"]["log_loss"] or 1.0) < 0.5
    (dead,) = rows.records("rows.labels-by-id.dlq")
    assert b"perhaps" in (dead.value or b"")


@pytest.mark.parametrize(
    ("name", "says", "won"),
    [
        ("last", (1, 0, 1), 1),
        ("last", (1, 1, 0), 0),
        ("largest", (0, "true", 0), "true"),
        ("mean", (1.0, 2.5, "4"), 2.5),
    ],
)
def test_which_of_several_labels_wins(world: Callable[..., World], name: str, says: tuple[Any, ...], won: Any) -> None:
    """The declared one, when the window has closed."""
    rows = world(name)
    rows.start(JOINING)
    rows.send(*((n, value, 60.0 + i) for n in range(EVENTS) for i, value in enumerate(says)))
    examples = rows.read("rows.examples", CLOSED)
    assert {won} == {example["label"] for example in examples.values()}


def test_no_label_may_mean_no(world: Callable[..., World]) -> None:
    """With missing=0 the events that got no label in time are examples too, and say so."""
    rows = world("implicit")
    rows.start(JOINING)
    rows.send(*((n, 1, 60.0) for n in range(0, EVENTS, 4)), (1, 1, 3_600.0))  # the last one comes too late
    examples = rows.read("rows.examples", CLOSED)
    shown = {n: (example["label"], example.get("implicit", False)) for n, example in examples.items()}
    assert {n: (1, False) if n % 4 == 0 else (0, True) for n in shown} == shown


def level(n: int) -> str:
    return "low" if x(n) < -0.3 else "mid" if x(n) < 0.3 else "high"


def test_classes_are_learned(world: Callable[..., World]) -> None:
    """A release comes of them, and what it then says of an event is one probability a class, the right one largest."""
    rows = world("classes")
    rows.start(ALL)
    rows.send(*((n, level(n), 60.0) for n in range(EVENTS)))
    n, scores = rows.said_since(rows.release().version)
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)
    assert level(n) == rows.pipeline.label.classes[scores.index(max(scores))]


def test_several_labels_of_an_event_are_learned(world: Callable[..., World]) -> None:
    """Each says for itself whether it applies, as a list or by name; a release gives the probability of each. A label
    that was not declared is a dead letter."""
    rows = world("several")
    rows.start(ALL)

    def says(n: int) -> list[str] | dict[str, bool]:
        flags = {"positive": x(n) > 0, "large": abs(x(n)) > 0.5}
        return flags if n % 2 else [name for name, applies in flags.items() if applies]

    rows.send(*((n, says(n), 60.0) for n in range(EVENTS)), (0, ["tiny"], 30.0), (1, "positive", 30.0))
    examples = rows.read("rows.examples", EVENTS)
    assert {n: example["label"] for n, example in examples.items()} == {n: says(n) for n in range(EVENTS)}
    assert (rows.release().metrics["candidate"]["log_loss"] or 1.0) < 0.4
    n, scores = rows.said_since(rows.release().version)
    assert [score > 0.5 for score in scores] == [x(n) > 0, abs(x(n)) > 0.5]
    letters = b" ".join(record.value or b"" for record in rows.records("rows.labels.dlq"))
    assert letters.count(b"tiny") == letters.count(b'"positive"') == 1


def test_values_are_learned(world: Callable[..., World]) -> None:
    """A regression's release says the value, in the label's own unit."""
    rows = world("mean")
    rows.start(ALL)
    rows.send(*((n, 1_000 + 100 * x(n), 60.0) for n in range(EVENTS)))
    n, scores = rows.said_since(rows.release().version)
    assert scores == [pytest.approx(1_000 + 100 * x(n), abs=40)]
