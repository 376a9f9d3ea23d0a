"""A run with patience ends early, with the weights that were best on the held rows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from support.training_run import BINARY, ROWS, data, deep, trained
from torch import nn

from tailrace.declaration.training import Training
from tailrace.inference.releases.manifest import serialise
from tailrace.retrain.training.early_stopping import EarlyStopping
from tailrace.retrain.training.loop import score, train


def test_a_run_ends_when_it_stops_getting_better() -> None:
    """On random labels a run with patience ends early, with the weights that were best on the held rows."""
    module = deep(hidden=64)
    plan = Training(epochs=60, patience=3, learning_rate=0.01, weight_decay=0.0)
    result = trained(module, plan, noise=True)
    steps = 60 * -(-540 // 64)
    assert result.steps < steps
    losses = [loss for _, loss in result.evaluations]
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    assert [step for step, _ in result.evaluations][-1] == result.steps == result.losses[-1][0]
    inputs, targets = data(noise=True)
    scores = torch.from_numpy(score(module, inputs.take(slice(540, None)), BINARY)[:, 0])
    kept = nn.functional.binary_cross_entropy(scores, torch.from_numpy(targets[540:]))
    assert float(kept) == pytest.approx(min(losses), abs=1e-5)


def test_a_run_that_gets_better_takes_all_its_steps() -> None:
    """A run that keeps improving takes all steps, with evenly spaced evaluations, the last at the last step."""
    result = trained(deep(), Training(epochs=5, patience=5))
    steps = [step for step, _ in result.evaluations]
    assert result.steps == 5 * -(-540 // 64) == steps[-1]
    assert len({after - before for before, after in pairwise(steps)}) == 1


@pytest.mark.parametrize(("fresh", "seen"), [(None, 540), (100, 590)])
def test_rows_of_the_evaluations_are_not_trained_on(fresh: int | None, seen: int) -> None:
    """The newest rows are held for evaluations and not trained on; in a warm run they are some of the fresh rows."""
    module = deep()
    trained(module, Training(patience=2), fresh=fresh)
    assert module.prepared_on == seen
    trained(module, Training(), fresh=fresh)
    assert module.prepared_on == ROWS


def test_a_warm_run_that_only_harms_changes_nothing() -> None:
    """A run with patience may keep the weights that it started with: here all but the newest labels are wrong."""
    module = deep()
    trained(module, Training(epochs=30))
    before = serialise(module.state_dict())
    inputs, targets = data()
    targets[:-100] = 1 - targets[:-100]
    plan = Training(patience=2, validation=0.5)
    result = train(module, inputs, targets, plan, BINARY, fresh=200, seed=5, report=lambda *_: None)
    assert serialise(module.state_dict()) == before
    assert result.steps > 0


def test_a_loss_that_is_not_finite_is_never_the_best() -> None:
    """NaN and infinity count as evaluations without improvement."""
    module = nn.Linear(1, 1)
    stopping = EarlyStopping(module, 2)
    assert [stopping.record(n, loss) for n, loss in enumerate([0.5, float("nan"), 0.4, float("inf"), 0.6])] == [
        False,
        False,
        False,
        False,
        True,
    ]
