"""Declarations of all kinds, end to end on the embedded log, with all roles in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401  (roles in threads, importing it at the same time, would find it half made)
import pytest
from support.world import ALL, EVENTS, JOINING, World, x

from tailrace.app.settings import WorkerSettings
from tailrace.streams.log.base import Topic

CLOSED = 170  # events whose label window of ten minutes has closed when all events, a minute apart, were read


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Create worlds that end with the test."""
    with ExitStack() as stack:

        def make(name: str, **options: Any) -> World:
            made = World(tmp_path, name, **options)
            stack.callback(made.close)
            return made

        yield make


def test_functions_of_the_event_are_scored_carried_and_trained_on(world: Callable[..., World]) -> None:
    """Prediction, example and the network's input hold the same value of a @feature, also if the events topic has
    another number of partitions than the others and the worker delivers at least once."""
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
    """A labels topic with foreign keys and another number of partitions is rekeyed by the joiner, and a user's own
    network learns from the derived feature that it alone reads."""
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
    """The declared policy chooses among several labels when the window has closed."""
    rows = world(name)
    rows.start(JOINING)
    rows.send(*((n, value, 60.0 + i) for n in range(EVENTS) for i, value in enumerate(says)))
    examples = rows.read("rows.examples", CLOSED)
    assert {won} == {example["label"] for example in examples.values()}


def test_no_label_may_mean_no(world: Callable[..., World]) -> None:
    """With missing=0 an event without a label in time becomes an example that is marked as implicit."""
    rows = world("implicit")
    rows.start(JOINING)
    rows.send(*((n, 1, 60.0) for n in range(0, EVENTS, 4)), (1, 1, 3_600.0))  # the last label comes too late
    examples = rows.read("rows.examples", CLOSED)
    shown = {n: (example["label"], example.get("implicit", False)) for n, example in examples.items()}
    assert {n: (1, False) if n % 4 == 0 else (0, True) for n in shown} == shown


def level(n: int) -> str:
    return "low" if x(n) < -0.3 else "mid" if x(n) < 0.3 else "high"


def test_classes_are_learned(world: Callable[..., World]) -> None:
    """A release of a multi-class pipeline predicts one probability a class, and the right class has the largest."""
    rows = world("classes")
    rows.start(ALL)
    rows.send(*((n, level(n), 60.0) for n in range(EVENTS)))
    n, scores = rows.first_scored_since(rows.release().version)
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)
    assert level(n) == rows.pipeline.label.classes[scores.index(max(scores))]


def test_several_labels_of_an_event_are_learned(world: Callable[..., World]) -> None:
    """Labels of a multi-label pipeline come as lists or as flags by name; a release predicts the probability of each
    label. A label that was not declared is a dead letter."""
    rows = world("several")
    rows.start(ALL)

    def says(n: int) -> list[str] | dict[str, bool]:
        flags = {"positive": x(n) > 0, "large": abs(x(n)) > 0.5}
        return flags if n % 2 else [name for name, applies in flags.items() if applies]

    rows.send(*((n, says(n), 60.0) for n in range(EVENTS)), (0, ["tiny"], 30.0), (1, "positive", 30.0))
    examples = rows.read("rows.examples", EVENTS)
    assert {n: example["label"] for n, example in examples.items()} == {n: says(n) for n in range(EVENTS)}
    assert (rows.release().metrics["candidate"]["log_loss"] or 1.0) < 0.4
    n, scores = rows.first_scored_since(rows.release().version)
    assert [score > 0.5 for score in scores] == [x(n) > 0, abs(x(n)) > 0.5]
    letters = b" ".join(record.value or b"" for record in rows.records("rows.labels.dlq"))
    assert letters.count(b"tiny") == letters.count(b'"positive"') == 1


def test_values_are_learned(world: Callable[..., World]) -> None:
    """A release of a regression predicts values in the unit of the label."""
    rows = world("mean")
    rows.start(ALL)
    rows.send(*((n, 1_000 + 100 * x(n), 60.0) for n in range(EVENTS)))
    n, scores = rows.first_scored_since(rows.release().version)
    assert scores == [pytest.approx(1_000 + 100 * x(n), abs=40)]
