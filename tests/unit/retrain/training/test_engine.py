"""Training plans: start, frozen parameters, early stopping, averaging and compilation of a run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import retrain_pipeline as tiny
from support.jobs import job
from torch import Tensor, nn

from tailrace.declaration.online import Online
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.errors import DeclarationError
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.hooks import OnlineModule
from tailrace.inference.models.losses import losses
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import load_state, serialise
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.averaging import Average, Best, transfer, tuned
from tailrace.retrain.training.batches import picked
from tailrace.retrain.training.loop import TrainResult, score, train
from tailrace.retrain.worker.client import Trainer, TrainingFailed

BINARY = Task(Kind.BINARY)
ROWS = 600


class Deep(OnlineModule):
    """A body and a head; dropout between them."""

    def __init__(self, hidden: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(hidden, 1)
        self.prepared_on = 0

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(numbers))
        return logits

    def prepare(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> None:
        self.prepared_on = len(targets)


def deep(seed: int = 0, **options: Any) -> Deep:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Deep(**options)


def data(noise: bool = False) -> tuple[Inputs, np.ndarray]:
    """Rows whose label is the sign of their first number, or noise."""
    random = np.random.default_rng(3)
    numbers = random.normal(size=(ROWS, 2)).astype(np.float32)
    targets = (random.random(ROWS) < 0.5 if noise else numbers[:, 0] > 0).astype(np.float32)
    return Inputs(numbers, np.zeros((ROWS, 0), np.int64)), targets


def trained(module: nn.Module, plan: Training, *, fresh: int | None = None, noise: bool = False) -> TrainResult:
    inputs, targets = data(noise)
    return train(module, inputs, targets, plan, BINARY, fresh=fresh, seed=5, report=lambda *_: None)


def state(plan: Training, *, fresh: int | None = None, **options: Any) -> bytes:
    module = deep(**options)
    trained(module, plan, fresh=fresh)
    return serialise(module.state_dict())


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    one = Trainer(tiny.LOADER, "support.retrain_pipeline:pipeline")
    one.start()
    yield one
    one.close()


def test_the_automatic_schedule_depends_on_the_start() -> None:
    """A cold run follows the cosine and a warm one the constant, unless told otherwise."""
    assert state(Training()) == state(Training(schedule="cosine")) != state(Training(schedule="constant"))
    assert state(Training(), fresh=200) == state(Training(schedule="constant"), fresh=200)
    assert state(Training(warm_up=0.5)) != state(Training())


def test_frozen_parameters_stay() -> None:
    """Parameters that a pattern names keep their values; the others change."""
    module, before = deep(), deep().state_dict()
    trained(module, Training(frozen=("body.*",)))
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (("tail.*",), r"'tail.\*' matches no parameter; the network has body.0.weight"),
        (("*",), "no parameter to train"),
    ],
)
def test_a_pattern_that_does_not_fit_is_told(frozen: tuple[str, ...], said: str) -> None:
    """A pattern that matches no parameter, or all of them, fails the run before its first step."""
    with pytest.raises(DeclarationError, match=said):
        trained(deep(), Training(frozen=frozen))


def test_a_pattern_that_does_not_fit_reaches_the_retrainer() -> None:
    """The training process reports the pattern as the reason of its failure."""
    one = Trainer(tiny.LOADER, "support.retrain_pipeline:pipeline")
    with pytest.raises(TrainingFailed, match="'tail' matches no parameter") as failed:
        one.train(job(msgspec.structs.replace(tiny.PLAN, frozen=("tail",))))
    one.close()
    assert failed.value.reason == "error"


def test_a_run_from_scratch_forgets_the_champion(trainer: Trainer) -> None:
    """A run from scratch gives the weights of a run without a champion, which is still scored."""
    champion = trainer.train(job())
    plan = msgspec.structs.replace(tiny.PLAN, start="scratch")
    again = trainer.train(job(plan, champion=champion.state, seed=2))
    assert (again.warm, again.state) == (False, trainer.train(job(seed=2)).state)
    assert again.champion_scores == champion.scores


def test_a_transfer_starts_from_the_champion_and_sees_the_whole_window(trainer: Trainer) -> None:
    """A transfer trains every epoch of the plan from the champion's weights; frozen ones keep their values."""
    champion = trainer.train(job())
    names = [name for name in load_state(champion.state) if name.endswith("weight")]
    plan = msgspec.structs.replace(tiny.PLAN, start="transfer", frozen=(names[0],), epochs=2)
    candidate = trainer.train(job(plan, champion=champion.state, seed=2))
    assert (candidate.warm, candidate.steps) == (True, 2 * 10)
    assert torch.equal(load_state(candidate.state)[names[0]], load_state(champion.state)[names[0]])
    assert candidate.losses[0][1] < trainer.train(job(seed=2)).losses[0][1]


def test_a_network_that_has_grown_keeps_what_fits() -> None:
    """Tensors of equal name and shape are copied; the others keep their initial values."""
    module, old = deep(1, hidden=8), deep(2, hidden=8)
    old.head = nn.Linear(8, 3)
    fresh = deep(1, hidden=8).state_dict()
    assert transfer(module, old.state_dict()) == 2
    assert torch.equal(module.body.get_parameter("0.weight"), old.body.get_parameter("0.weight"))
    assert torch.equal(module.head.weight, fresh["head.weight"])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.1, 0.999))
def test_the_average_is_the_moving_average(values: list[float], decay: float) -> None:
    """The average follows the recursion of its definition, and swapping twice changes nothing."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average, expected = Average([parameter], decay), 0.0
    for n, value in enumerate(values, 1):
        parameter.data.fill_(value)
        average.update()
        rate = min(decay, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * value
    average.swap()
    assert float(parameter.detach()) == pytest.approx(expected, abs=1e-9)
    average.swap()
    assert float(parameter.detach()) == values[-1]


def test_the_average_is_released() -> None:
    """With a decay the run ends with the average, which is near the newest weights but not equal."""
    plain, averaged = deep(), deep()
    trained(plain, Training())
    trained(averaged, Training(ema=0.9))
    distance = (plain.head.weight - averaged.head.weight).detach().abs().max()
    assert 0 < float(distance) < 0.1


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


def test_the_best_is_never_one_that_is_no_number() -> None:
    """A loss that is not finite is never the best."""
    module = nn.Linear(1, 1)
    best = Best(module, 2)
    assert [best.take(n, loss) for n, loss in enumerate([0.5, float("nan"), 0.4, float("inf"), 0.6])] == [
        False,
        False,
        False,
        False,
        True,
    ]


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


def test_nothing_frozen_leaves_a_users_own_choice() -> None:
    """Parameters that the factory froze stay frozen."""
    module = deep()
    module.body.requires_grad_(False)
    assert len(tuned(module, ())) == 2
