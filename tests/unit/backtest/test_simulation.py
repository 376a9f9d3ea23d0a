"""Simulations: the release that serves each event, the effects of policies, and repeatability."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from support import retrain_pipeline as tiny

from tailrace.backtest.history.arrays import Stream
from tailrace.backtest.history.parts import Arrival
from tailrace.backtest.metrics import Prequential
from tailrace.backtest.policy import Policy, changed
from tailrace.backtest.simulation import Rates, Result, Simulation
from tailrace.declaration.triggers import Drift, Labels
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.serving.loader import scorer

ONLINE = Policy.of(tiny.online)


def stream(count: int, delay: int = 60, *, flip_at: int | None = None, late: int = 0) -> Stream:
    """Events a second apart. The label is x > 0 for nine of ten (x < 0 from event `flip_at` on) and becomes known
    `delay` events later; the last `late` events have none."""
    made = [*tiny.examples(count)]
    if flip_at is not None:
        made = [*made[:flip_at], *tiny.examples(count - flip_at, flip_at, flip=True)]
    events = [msgspec.json.decode(bytes(example.features), type=tiny.Reading) for example in made]
    features = ModelSpec.of(tiny.online).features
    targets = np.array([tiny.online.task.target(example.label) for example in made], np.float32)
    known = range(count - late)
    targets[count - late :] = np.nan
    return Stream(
        ids=[example.id for example in made],
        times=np.array([example.time for example in made]),
        inputs=features.encode(events),
        features=[{} for _ in made],
        targets=targets,
        arrivals=[Arrival(min(n + delay + 1, count), n) for n in known],
        optional=tuple(features.optional),
        buckets=tuple(features.buckets),
    )


def simulate(policy: Policy, some: Stream, **rates: float) -> Result:
    return Simulation(policy, some.as_partial(), Rates(**rates)).run()


def test_it_learns_and_repeats_exactly() -> None:
    """The model learns; the same history, policy and seed give the same bits, and another seed gives others."""
    some = stream(1_500)
    first, second = simulate(ONLINE, some), simulate(ONLINE, some)
    assert first.scores.tobytes() == second.scores.tobytes()
    assert first.releases.tolist() == second.releases.tolist()
    assert simulate(ONLINE.seeded(1), some).scores.tobytes() != first.scores.tobytes()
    figures = Prequential(ONLINE.pipeline.task, 500).figures(first.scores, some.targets)
    assert figures.accuracy is not None
    assert figures.accuracy > 0.85
    assert first.updates == first.published == (1_500 - 60) // 50


def test_no_event_is_scored_by_a_release_that_knows_its_future() -> None:
    """A release serves only events after its last label became known and after its training would have ended."""
    some = stream(700)
    result = simulate(ONLINE, some, update_labels=10.0)  # 5 s for 50 labels: five events
    for release in range(1, result.published + 1):
        served = np.flatnonzero(result.releases == release)
        knew = some.arrivals[release * 50 - 1].position
        assert len(served) == 0 or served[0] >= knew + 5
    assert result.releases[0] == 0
    assert (np.diff(result.releases) >= 0).all()


def test_each_event_has_the_scores_of_the_release_that_served_it() -> None:
    """Scoring again with the weights of a release reproduces the recorded scores of the events that it served."""
    some, states = stream(500), dict[int, dict[str, torch.Tensor]]()
    result = Simulation(ONLINE, some.as_partial(), keep=states.__setitem__).run()
    for release in sorted(set(result.releases.tolist()) - {0}):
        module = ModelSpec.of(tiny.online).build()
        module.load_state_dict(states[release])
        rows = np.flatnonzero(result.releases == release)
        np.testing.assert_allclose(
            scorer(module, tiny.online.task)(some.inputs.take(rows)), result.scores[rows], atol=1e-6
        )


def test_runs_and_the_gate() -> None:
    """Runs every 300 labels record trigger, reason and verdict; exactly the runs that pass the gate are released."""
    policy = changed(ONLINE, {"online": False, "retrain": [{"labels": 300}]}, "runs")
    result = simulate(policy, stream(1_500))
    assert len(result.retrainings) == 4
    assert all(run.reason == "300 new labels (every 300)" for run in result.retrainings)
    assert {run.trigger for run in result.retrainings} == {"labels"}
    assert all(run.gate for run in result.retrainings)
    assert result.published == sum(run.released for run in result.retrainings) >= 1
    assert result.updates == 0


def test_runs_and_updates_go_together() -> None:
    """With runs and updates, a run's release replaces the champion, and later updates continue from it."""
    policy = changed(Policy.of(tiny.both), {"retrain": [{"labels": 500}], "gate": {"confidence": 0.999}}, "both")
    result = simulate(policy, stream(2_000))
    assert len(result.retrainings) == 3
    assert any(run.released for run in result.retrainings)
    assert result.updates > 25


def test_an_abrupt_change_is_detected_and_learned() -> None:
    """After the label flips, the drift trigger starts a run on the examples since then, and accuracy recovers."""
    plan = msgspec.structs.replace(tiny.PLAN, min_examples=100)
    base = ONLINE.pipeline.replace(online=False, training=plan)
    some = stream(4_000, flip_at=2_000)
    alone = simulate(Policy.of(base.replace(retrain=[Labels(1_500)])), some)
    helped = simulate(Policy.of(base.replace(retrain=[Labels(1_500), Drift()])), some)
    assert helped.drifts
    assert any("loss rose" in run.reason for run in helped.retrainings)
    assert {run.trigger for run in helped.retrainings} == {"labels", "drift"}
    after = slice(2_000, 3_000)
    task = ONLINE.pipeline.task
    before, now = (
        Prequential(task).figures(result.scores[after], some.targets[after]).accuracy for result in (alone, helped)
    )
    assert before is not None
    assert now is not None
    assert now > before + 0.1


def test_events_without_a_label_do_not_count() -> None:
    """Events without a label are scored but do not count in the figures."""
    some = stream(400, late=100)
    result = simulate(ONLINE, some)
    assert np.isfinite(result.scores).all()
    assert Prequential(ONLINE.pipeline.task).figures(result.scores, some.targets).scored == 300


@pytest.mark.parametrize("count", [0, 1])
def test_almost_no_history(count: int) -> None:
    """An empty history gives no scores, and a single event without a label gets the base-rate score."""
    some = stream(count, late=count)
    assert isinstance(some.inputs, Inputs)
    assert simulate(ONLINE, some).scores.tolist() == [[0.5]] * count
