"""Training plans: schedule, dropout, compilation, batches and weights of a run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import retrain_pipeline as tiny
from support.training_run import BINARY, ROWS, data, deep, state, trained
from torch import Tensor, nn

from tailrace.declaration.online import Online
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.errors import DeclarationError
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import losses
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import serialise
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.batches import picked
from tailrace.retrain.training.loop import score, train


def test_the_automatic_schedule_depends_on_the_start() -> None:
    """A cold run follows the cosine and a warm one the constant, unless told otherwise."""
    assert state(Training()) == state(Training(schedule="cosine")) != state(Training(schedule="constant"))
    assert state(Training(), fresh=200) == state(Training(schedule="constant"), fresh=200)
    assert state(Training(warm_up=0.5)) != state(Training())


def test_dropout_repeats() -> None:
    """Dropout repeats with the seed of the run, and the process's own random state does not change."""
    before = torch.random.get_rng_state()
    assert state(Training(), dropout=0.5) == state(Training(), dropout=0.5) != state(Training())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_compiler_that_fails_is_told_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """If compilation fails, the run gives the result of a run without it, and the log has the reason."""

    def broken(module: nn.Module) -> Callable[..., Tensor]:
        def step(*rows: Tensor) -> Tensor:
            module(*rows).backward()
            raise RuntimeError("no compiler here")

        return step

    expected = state(Training())
    monkeypatch.setattr(torch, "compile", broken)
    with structlog.testing.capture_logs() as logs:
        assert state(Training(compile=True)) == expected
    assert [line["detail"] for line in logs] == ["RuntimeError: no compiler here"]


WITH_COMPILER = [pytest.mark.long, pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")]


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=WITH_COMPILER)])
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_comes_to_the_same(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch.compile the losses agree to 1e-4."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    plain, compiled = trained(deep(), Training()), trained(deep(), Training(compile=True))
    np.testing.assert_allclose(plain.losses, compiled.losses, rtol=0, atol=1e-4)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), max_size=8))
def test_picked_rows_are_those_of_the_batches(batches: list[list[int]]) -> None:
    """Each batch has its rows of every column, in its order."""
    columns = [torch.arange(10), torch.arange(20).reshape(10, 2)]
    found = list(picked(columns, [torch.tensor(batch) for batch in batches]))
    assert [[column.tolist() for column in rows] for rows in found] == [
        [column[batch].tolist() for column in columns] for batch in batches
    ]


def test_chunks_of_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are picked in several bounded chunks, and no row is lost."""
    monkeypatch.setattr("tailrace.retrain.training.batches.CHUNK_ROWS", 8)
    rows = torch.arange(30)
    found = [batch for (batch,) in picked([rows], list(rows.split(3)))]
    assert torch.cat(found).tolist() == rows.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "cold"},
        {"schedule": "linear"},
        {"warm_up": 1.0},
        {"ema": 1.0},
        {"patience": -1},
        {"validation": 0.0},
        {"frozen": "body.*"},
        {"frozen": ("",)},
    ],
)
def test_a_plan_says_which_value_is_wrong(wrong: dict[str, Any]) -> None:
    """A value outside its range is reported with the field's name and range."""
    (name,) = wrong
    with pytest.raises(DeclarationError, match=rf"Training\({name}=.*: {name} must be "):
        Training(**wrong)


def test_rows_count_as_much_as_they_weigh() -> None:
    """The label of a row of weight 0 has no effect."""
    inputs, targets = data()
    weights = np.ones(ROWS, np.float32)
    weights[::3] = 0
    states: list[bytes] = []
    for wrong in (False, True):
        module, given = deep(), targets.copy()
        given[::3] = 1 - given[::3] if wrong else given[::3]
        plan = Training(epochs=2)
        train(module, inputs, given, plan, BINARY, fresh=None, seed=5, report=lambda *_: None, weights=weights)
        states.append(serialise(module.state_dict()))
    assert states[0] == states[1] != state(Training(epochs=2))


def test_a_balanced_run_stays_calibrated() -> None:
    """With larger weights for the rarer class, the prior keeps the released probabilities calibrated."""
    inputs = data()[0]
    targets = (np.random.default_rng(1).random(ROWS) < 0.1).astype(np.float32)
    weights = np.where(targets == 1, 9.0, 1.0).astype(np.float32)
    means: list[float] = []
    for prior in (None, (math.log(9),)):
        module, plan = deep(), Training(epochs=40, learning_rate=0.01, weight_decay=0.0)
        train(
            module, inputs, targets, plan, BINARY, fresh=None, seed=5, report=lambda *_: None,
            weights=weights / weights.mean(), prior=prior,
        )  # fmt: skip
        means.append(float(score(module, inputs, BINARY).mean()))
    assert means == [pytest.approx(0.5, abs=0.06), pytest.approx(float(targets.mean()), abs=0.03)]


def test_several_labels_are_learned_online() -> None:
    """The default network learns each label of a multi-label task online."""
    task = Task(Kind.MULTILABEL, ("a", "b"))
    x = np.random.default_rng(2).normal(size=(2_000, 2)).astype(np.float32)
    targets = np.stack((x[:, 0] > 0, x[:, 1] > 0.5), 1).astype(np.float32)
    inputs = Inputs(x, np.zeros((2_000, 1), np.int64))
    learner = Learner(ModelSpec(ModelSpec.of(tiny.pipeline).features, task).build(), task, Online(), 0)
    for start in range(0, 2_000, 50):
        learner.learn(inputs.take(slice(start, start + 50)), targets[start : start + 50])
    error = losses("accuracy", task.kind, score(learner.module, inputs, task), targets).mean()
    assert error < 0.05
