"""The harness for tests of pipelines."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace import Event, EventTime, Key, Label, Number, Online, Pipeline, Training
from tailrace.testing import Harness, ManualClock, NotIdle
from tailrace.triggers import Labels

START = 1_767_225_600.0


class Reading(Event):
    """A measured value with its time."""

    id: Key
    at: EventTime
    x: Number


def declare(name: str = "readings", **options: Any) -> Pipeline:
    """Return a pipeline of readings; `options` override the declaration."""
    label = options.pop("label", Label("positive", wait="1d", base_rate=0.5))
    return Pipeline(name, event=Reading, label=label, **options)


def readings(first: int, end: int) -> list[Reading]:
    """Return readings `first` to `end`, exclusive, one minute apart."""
    return [Reading(id=f"r{n}", at=START + 60 * n, x=math.sin(n)) for n in range(first, end)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def kit(clock: ManualClock) -> Iterator[Harness]:
    with Harness(declare(online=Online(labels=20, seconds=0.01)), clock=clock) as kit:
        yield kit


def teach(kit: Harness, first: int, end: int) -> None:
    """Send readings and their labels, and advance the clock to the time of the last one."""
    events = readings(first, end)
    kit.clock.now = START + 60 * end
    kit.send(*events)
    for event in events:
        kit.label(event.id, event.x > 0)


def test_the_complete_loop_runs_in_the_test_process(kit: Harness) -> None:
    """Events are scored, labels are joined, full updates are learned, and the newest release scores the next event."""
    teach(kit, 0, 100)
    kit.run_until_idle()
    assert {0} == {prediction.release for prediction in kit.predictions()}
    assert {f"r{n}": math.sin(n) > 0 for n in range(100)} == {example.id: example.label for example in kit.examples()}
    newest = kit.releases()[-1].version
    kit.send(*readings(100, 101))
    kit.run_until_idle()
    assert [newest] == [prediction.release for prediction in kit.predictions() if prediction.id == "r100"]
    assert kit.dead_letters() == []
    assert "retrain" not in " ".join(thread.name for thread in threading.enumerate())


def test_runs_are_trained_in_the_test_process(clock: ManualClock) -> None:
    """A trigger that fires leads to a run and to a release that passed the gate."""
    plan = Training(min_examples=60, holdout_least=50, epochs=8, batch_size=16, learning_rate=0.03)
    with Harness(declare(retrain=[Labels(100)], training=plan, online=False), clock=clock) as kit:
        teach(kit, 0, 150)
        kit.run_until_idle()
        (release,) = kit.releases()
    assert (release.reason, release.updates) == ("150 new labels (every 100)", None)


def test_the_clock_determines_the_future(kit: Harness) -> None:
    """An event two days ahead of the clock becomes a dead letter; after the clock has advanced, it is scored."""
    ahead = Reading(id="ahead", at=START + 2 * 86_400, x=1.0)
    kit.send(ahead, b"no JSON")
    kit.run_until_idle()
    assert sorted(dead_letter.reason for dead_letter in kit.dead_letters()) == ["future_time", "invalid_json"]
    assert kit.clock.advance("2d") == START + 2 * 86_400
    kit.send(ahead)
    kit.run_until_idle()
    assert [prediction.id for prediction in kit.predictions()] == ["ahead"]


def test_windows_close_by_event_time(clock: ManualClock) -> None:
    """An event without a label becomes an example with the implicit label when a later event closes its window."""
    label = Label("positive", wait="10m", missing=0)
    with Harness(declare(label=label, online=False), partitions=1, clock=clock) as kit:
        kit.send(*readings(0, 5))
        kit.run_until_idle()
        assert kit.examples() == []
        clock.advance("1h")
        kit.send(*readings(60, 61))
        kit.run_until_idle()
        assert {f"r{n}": 0 for n in range(5)} == {example.id: example.label for example in kit.examples()}


def test_labels_with_another_key_are_rekeyed(clock: ManualClock) -> None:
    """The harness runs the rekeyer, and uses the declared field names for labels."""
    label = Label("positive", wait="1h", rekey=True, fields={"id": "of"})
    with Harness(declare(label=label, online=False), clock=clock) as kit:
        kit.send(*readings(0, 3))
        kit.label("r1", True)
        kit.run_until_idle()
        assert [(example.id, example.label) for example in kit.examples()] == [("r1", True)]


def test_an_untrained_model_scores(kit: Harness) -> None:
    """A release with fresh weights scores events, and the live model returns equal scores."""
    version = kit.publish_untrained()
    kit.send(*readings(0, 3))
    kit.run_until_idle()
    with kit.follow() as live:
        live_prediction = live.predict(readings(0, 3))
    predictions = {prediction.id: prediction for prediction in kit.predictions()}
    assert {version} == {prediction.release for prediction in predictions.values()} == {live_prediction.release}
    assert live_prediction.scores.tolist() == [pytest.approx(predictions[f"r{n}"].scores, rel=1e-5) for n in range(3)]


def test_a_harness_that_is_not_idle_names_the_role(kit: Harness) -> None:
    """After its patience the harness raises an error that names the role with records left to process."""
    kit.send(*readings(0, 1))
    with pytest.raises(NotIdle, match="worker"):
        kit.run_until_idle(patience=-1)


@pytest.mark.kafka
def test_the_complete_loop_runs_on_kafka(kafka_bootstrap: str, clock: ManualClock) -> None:
    """On a real Kafka, events are scored, labels joined and updates learned as on the embedded log."""
    declared = declare(f"readings-{uuid.uuid4().hex[:8]}", online=Online(labels=20, seconds=0.01))
    with Harness(declared, f"kafka://{kafka_bootstrap}", clock=clock) as kit:
        teach(kit, 0, 50)
        kit.run_until_idle()
        assert len(kit.predictions()) == len(kit.examples()) == 50
        newest = kit.releases()[-1].version
        kit.send(*readings(50, 51))
        kit.run_until_idle()
        assert [newest] == [prediction.release for prediction in kit.predictions() if prediction.id == "r50"]
