"""Steps of one row: modules that normalise over a batch learn in every kind of run and update."""

from __future__ import annotations

import copy

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import retrain_pipeline as tiny
from support.jobs import job
from torch import Tensor, nn

from tailrace.declaration.online import Online
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import serialise
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.distributed import Group
from tailrace.retrain.training.loop import train
from tailrace.retrain.training.single_row import accompanied, trains_on_one_row
from tailrace.retrain.worker.candidate import candidate

BINARY = Task(Kind.BINARY)


class Normalised(nn.Module):
    """A module with BatchNorm, which raises for a batch of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.1))
        self.head = nn.Linear(4, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(numbers))
        return logits


class OwnNormalisation(nn.Module):
    """A module that divides by the batch's standard deviation, which is NaN for one row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        if self.training:
            numbers = (numbers - numbers.mean(0)) / (numbers.std(0) + 1e-3)
        logits: Tensor = self.layer(numbers)
        return logits


def rows(count: int) -> tuple[Inputs, np.ndarray]:
    numbers = np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)
    return Inputs(numbers, np.zeros((count, 0), np.int64)), (numbers[:, 0] > 0).astype(np.float32)


@pytest.mark.parametrize("module", [Normalised, OwnNormalisation])
@pytest.mark.parametrize(
    ("count", "fresh", "changes"),
    [
        (513, None, {}),
        (513, None, {"patience": 1}),
        (513, 65, {}),
        (513, 65, {"replay": 1}),
        (33, None, {"batch_size": 1}),
        (33, 3, {"batch_size": 1}),
        (1, None, {}),
    ],
)
def test_a_run_with_a_batch_of_one_row_learns(
    module: type[nn.Module], count: int, fresh: int | None, changes: dict[str, int]
) -> None:
    """Cold and warm runs, with replay and with a batch size of one, take all their steps."""
    plan = msgspec.structs.replace(Training(epochs=2), **changes)
    made, (inputs, targets) = module(), rows(count)
    result = train(made, inputs, targets, plan, BINARY, fresh=fresh, seed=1, report=lambda *_: None)
    assert result.steps > 0
    assert all(np.isfinite(loss) for _, loss in result.losses)


@pytest.mark.parametrize("module", [Normalised, OwnNormalisation])
@pytest.mark.parametrize("online", [Online(labels=1, batch_size=1), Online(labels=1), Online(labels=3, batch_size=1)])
def test_online_updates_of_one_row_learn(module: type[nn.Module], online: Online) -> None:
    """Chunks of one label and replayed batches of one row are learned, from the first label on."""
    learner, (inputs, targets) = Learner(module(), BINARY, online, 0), rows(7)
    for n in range(0, 7, online.labels):
        part = slice(n, n + online.labels)
        learner.learn(inputs.take(part), targets[part])
    assert all(bool(tensor.isfinite().all()) for tensor in learner.module.state_dict().values())


def test_a_holdout_that_updates_go_over_may_leave_one_row() -> None:
    """The candidate of a pipeline with online updates is scored over a holdout whose last chunk has one label."""

    class Wide(Normalised):
        def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
            return super().forward(numbers[:, :1], categories)

    spec = ModelSpec.of(tiny.online)._replace(factory=Wide)
    given = job(msgspec.structs.replace(tiny.PLAN, epochs=1))
    times = [float(n) for n in range(400)]
    online = msgspec.structs.replace(given, online=Online(labels=33, batch_size=1), times=times, matured=times)
    assert len(candidate(spec, online, lambda *_: None, Group()).scores) == 4 * 100


def test_trying_one_row_changes_nothing() -> None:
    """State, gradients, mode and random numbers are those from before, for the default network too."""
    network = ModelSpec.of(tiny.pipeline).build()
    numbers, categories = torch.zeros(1, 2), torch.zeros(1, 1, dtype=torch.int64)
    for module, expected in ((Normalised().eval(), False), (network.train(), True)):
        before, training = copy.deepcopy(module.state_dict()), module.training
        torch.manual_seed(3)
        drawn = torch.rand(2)
        torch.manual_seed(3)
        one = numbers[:, :1] if module is not network else numbers
        assert trains_on_one_row(module, one, categories) is expected
        assert torch.equal(torch.rand(2), drawn)
        assert module.training is training
        assert all(parameter.grad is None for parameter in module.parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_module_that_can_train_on_one_row_does() -> None:
    """A plain module's last row makes a step alone, as if it were the only row of a batch."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.sizes = nn.Linear(1, 1), list[int]()

        def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
            self.sizes.append(len(numbers))
            logits: Tensor = self.layer(numbers)
            return logits

    module, (inputs, targets) = Counting(), rows(65)
    train(module, inputs, targets, Training(epochs=1), BINARY, fresh=None, seed=1, report=lambda *_: None)
    assert module.sizes[1:] == [64, 1]


def test_a_run_with_batches_of_one_row_repeats() -> None:
    """Accompanying rows are a function of the run: the same run gives the same bytes."""
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        module, (inputs, targets) = Normalised(), rows(65)
        train(module, inputs, targets, Training(epochs=2), BINARY, fresh=None, seed=1, report=lambda *_: None)
        states.append(serialise(module.state_dict()))
    assert states[0] == states[1]


@given(st.integers(1, 20), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_only_batches_of_one_row_get_company(count: int, sizes: list[int]) -> None:
    """Larger batches are unchanged; a single row gets another one of the window, else itself."""
    batches = [torch.randint(count, (size,)) for size in sizes]
    for before, after in zip(batches, accompanied(batches, count), strict=True):
        assert after[: len(before)].tolist() == before.tolist()
        assert len(after) == max(len(before), 2)
        if len(before) == 1:
            assert 0 <= after[1] < count
            assert bool(after[0] != after[1]) == (count > 1)
