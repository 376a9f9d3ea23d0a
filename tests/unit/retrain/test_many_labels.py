"""Multi-label tasks of any number of labels: learned online and in runs, released, served, backtested."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace import Event, EventTime, Key, Label, Number, Online, Pipeline, Training, triggers
from tailrace.backtest.baselines.run import run as run_baseline
from tailrace.backtest.history.arrays import Stream
from tailrace.backtest.history.parts import Arrival
from tailrace.backtest.metrics import Prequential
from tailrace.backtest.policy import Policy
from tailrace.backtest.simulation import Simulation
from tailrace.inference.models.losses import losses
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import target_array
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.loop import score
from tailrace.testing import Harness, ManualClock

START = 1_767_225_600.0
PLAN = Training(min_examples=60, holdout_least=50, epochs=8, batch_size=16, learning_rate=0.03)


class Reading(Event):
    """A number at a time."""

    id: Key
    at: EventTime
    x: Number


def declare(labels: int, **options: object) -> Pipeline:
    label = Label("y", kind="multilabel", classes=[f"above {n}" for n in range(labels)])
    return Pipeline("many", event=Reading, label=label, training=PLAN, **options)  # type: ignore[arg-type]


def applying(x: float, labels: int) -> list[bool | int | float | str]:
    """Label n applies above a threshold of its own, from -1 to 1."""
    return [f"above {n}" for n in range(labels) if x > 2 * n / labels - 1]


def stream(pipeline: Pipeline, count: int, delay: int = 20) -> Stream:
    """Events a second apart, whose labels are known `delay` events later; the last ones get none."""
    spec, random = ModelSpec.of(pipeline), np.random.default_rng(1)
    events = [Reading(id=f"r{n}", at=START + n, x=x) for n, x in enumerate(random.uniform(-1.5, 1.5, count))]
    task = pipeline.task
    targets = target_array([task.target(applying(event.x, task.outputs)) for event in events], task)
    targets[count - delay :] = np.nan
    return Stream(
        ids=[str(event.id) for event in events],
        times=START + np.arange(float(count)),
        inputs=spec.features.encode(events),
        features=[{"x": event.x} for event in events],
        targets=targets,
        arrivals=[Arrival(n + delay, n) for n in range(count - delay)],
        optional=tuple(spec.features.optional),
        buckets=tuple(spec.features.buckets),
    )


@pytest.mark.parametrize("labels", [40, 200])
def test_many_labels_are_learned(labels: int) -> None:
    """The default network learns each of 40 and of 200 labels online."""
    pipeline = declare(labels)
    history = stream(pipeline, 1_220)
    learner = Learner(ModelSpec.of(pipeline).build(), pipeline.task, Online(), 0)
    for start in range(0, 1_000, 50):
        rows = slice(start, start + 50)
        learner.learn(history.inputs.take(rows), history.targets[rows])
    rows = slice(1_000, 1_200)
    scores = score(learner.module, history.inputs.take(rows), pipeline.task)
    assert scores.shape == (200, labels)
    assert losses("accuracy", pipeline.task.kind, scores, history.targets[rows]).mean() < 0.1


@pytest.mark.parametrize("labels", [40, 200])
@pytest.mark.parametrize("online", [False, True])
def test_many_labels_are_released_and_served(labels: int, online: bool) -> None:
    """Labels are joined, learned by an update or a run, published, and the release serves a score for each label."""
    options = (
        {"online": Online(labels=50, seconds=0.01)} if online else {"online": False, "retrain": [triggers.Labels(100)]}
    )
    pipeline, clock = declare(labels, **options), ManualClock(START)
    with Harness(pipeline, clock=clock) as kit:
        events = [Reading(id=f"r{n}", at=START + 60 * n, x=1.5 * float(np.sin(n))) for n in range(151)]
        clock.now = START + 60 * 151
        kit.send(*events[:150])
        for event in events[:150]:
            kit.label(event.id, applying(event.x, labels))
        kit.run_until_idle()
        newest = kit.releases()[-1].version
        kit.send(events[150])
        kit.run_until_idle()
        (served,) = (prediction for prediction in kit.predictions() if prediction.id == "r150")
        assert kit.dead_letters() == []
    assert (served.release, len(served.scores)) == (newest, labels)


def test_many_labels_are_backtested() -> None:
    """A policy with updates and runs, and a baseline, are measured on 40 labels; unlabelled events are left out."""
    pipeline = declare(40, online=Online(labels=50, seconds=0.0), retrain=[triggers.Labels(300)])
    history = stream(pipeline, 700)
    result = Simulation(Policy.of(pipeline), history.as_partial()).run()
    assert (result.updates > 5, len(result.retrainings) > 0) == (True, True)
    measure = Prequential(pipeline.task, 300)
    ours = measure.figures(result.scores, history.targets)
    baseline = measure.figures(run_baseline("no change", history, pipeline.task).scores, history.targets)
    assert ours.scored == baseline.scored == 380
    assert ours.accuracy is not None
    assert baseline.accuracy is not None
    assert ours.accuracy > 0.9 > baseline.accuracy
    assert len(measure.curve(history.times, result.scores, history.targets)) == 50
