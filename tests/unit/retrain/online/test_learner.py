"""Learning online: determinism, resuming, any module, any task, bounded work."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Annotated

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailrace.declaration.event import Event
from tailrace.declaration.features import Category, Number, Vector
from tailrace.declaration.online import Online
from tailrace.declaration.task import Kind, Task
from tailrace.errors import DeclarationError
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.tabular.linear import output_targets
from tailrace.retrain.online.learner import PARTS, Learner
from tailrace.retrain.training.loop import Diverged, score
from tailrace.retrain.training.optimizer import AdamW

BINARY = Task(Kind.BINARY)
THREE = Task(Kind.MULTICLASS, ("a", "b", "c"))
REGRESSION = Task(Kind.REGRESSION)
TASKS = (BINARY, THREE, REGRESSION)
Targets = NDArray[np.float32]


class Row(Event):
    x: Number
    gust: Number | None = None
    carrier: Category
    v: Annotated[list[float], Vector(2)]


FEATURES = Features.of(Row)


class Own(nn.Module):
    """A module without hooks that cannot train on a single row."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, outputs))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        logits: Tensor = self.layers(numbers.nan_to_num())
        return logits

    def encode(self, numbers: Tensor) -> Tensor:
        """A method of the user's: not a hook, because the class is not an OnlineModule."""
        raise AssertionError


def stream(task: Task, count: int, seed: int = 0, *, flip: bool = False) -> tuple[Inputs, Targets]:
    """Rows whose target depends on a number, a missing flag and a category; `flip` reverses it."""
    random = np.random.default_rng(seed)
    x, carrier = random.normal(size=count), random.integers(0, 5, count)
    numbers = np.stack([100 + 20 * x, np.where(x > 1, np.nan, x), random.normal(size=count), np.full(count, 3.0)], 1)
    signal = (2 * x + (carrier > 2) - 0.5) * (-1 if flip else 1)
    targets = {
        Kind.BINARY: signal > 0,
        Kind.MULTICLASS: np.digitize(signal, [-1.0, 1.0]),
        Kind.REGRESSION: 1_000 + 50 * signal,
    }[task.kind]
    return Inputs(numbers.astype(np.float32), carrier[:, None].astype(np.int64) + 1), targets.astype(np.float32)


def learner(task: Task = BINARY, seed: int = 0, plan: Online | None = None) -> Learner:
    return Learner(ModelSpec(FEATURES, task).build(seed), task, plan or Online(), seed)


def learned(learner: Learner, inputs: Inputs, targets: Targets, size: int = 50) -> list[float]:
    """Losses of chunks of `size` rows, each before it was learned."""
    starts = range(0, len(targets), size)
    return [learner.learn(inputs.take(slice(n, n + size)), targets[n : n + size]).loss for n in starts]


def same(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in left.state_dict().items())


@pytest.mark.parametrize("task", TASKS)
def test_it_learns_any_kind_of_task(task: Task) -> None:
    """Twenty updates bring the loss of rows not yet learned far below that of the first ones."""
    losses = learned(learner(task), *stream(task, 1_000))
    assert np.mean(losses[-5:]) < 0.4 * losses[0]


@pytest.mark.parametrize("task", TASKS)
def test_it_follows_a_stream_that_turns_round(task: Task) -> None:
    """The model recovers soon after a sudden drift, although it replays rows from before it."""
    subject = learner(task)
    learned(subject, *stream(task, 1_000))
    losses = learned(subject, *stream(task, 1_500, seed=1, flip=True))
    assert np.mean(losses[-5:]) < 0.4 * losses[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_plain_module_learns_too(task: Task) -> None:
    """A module without hooks is trained through `forward` alone, also by chunks of a single row."""
    subject = Learner(Own(task.outputs), task, Online(learning_rate=0.03), 0)
    inputs, targets = stream(task, 600)
    if task is REGRESSION:
        targets = targets - 1_000
    losses = learned(subject, inputs, targets, 20)
    learned(subject, *stream(task, 3, seed=1), 1)
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_the_same_chunks_give_the_same_bytes() -> None:
    """Module state, replayed rows, chunks and seed determine the weights; another seed gives others."""
    inputs, targets = stream(BINARY, 400)
    modules = []
    for seed in (1, 1, 2):
        subject = Learner(ModelSpec(FEATURES, BINARY).build(), BINARY, Online(), seed)
        subject.remember(inputs.take(slice(0, 200)), targets[:200])
        learned(subject, inputs.take(slice(200, 400)), targets[200:])
        modules.append(subject.module)
    assert same(modules[0], modules[1])
    assert not same(modules[0], modules[2])


@pytest.mark.parametrize("task", TASKS)
def test_learning_goes_on_without_a_jolt_after_a_resume(task: Task) -> None:
    """A new learner on the saved state and the replayed rows is about as good as one that never stopped."""
    inputs, targets = stream(task, 2_000)
    first = learner(task)
    learned(first, inputs.take(slice(0, 1_500)), targets[:1_500])
    module = ModelSpec(FEATURES, task).build(9)
    module.load_state_dict(copy.deepcopy(first.module.state_dict()))
    resumed = Learner(module, task, Online(), 5)
    resumed.remember(inputs.take(slice(0, 1_500)), targets[:1_500])
    rest = inputs.take(slice(1_500, 2_000)), targets[1_500:]
    unbroken, anew = learned(first, *rest), learned(resumed, *rest)
    assert anew[0] == pytest.approx(unbroken[0])
    assert max(anew[1:4]) < 1.3 * max(unbroken[1:4])
    assert np.mean(anew) < 1.2 * np.mean(unbroken)


def test_remembering_does_not_learn() -> None:
    """Rows that are only added to the replay buffer leave the module as it is, in eval mode."""
    subject = learner()
    before = copy.deepcopy(subject.module)
    subject.remember(*stream(BINARY, 100))
    assert same(before, subject.module)
    assert not subject.module.training


def test_the_loss_is_that_of_what_was_served() -> None:
    """`learn` returns the scores and the mean loss of the chunk before it was learned, and leaves the module in eval
    mode."""
    subject = learner()
    learned(subject, *stream(BINARY, 500))
    inputs, targets = stream(BINARY, 50, seed=3)
    scores = score(subject.module, inputs, BINARY)[:, 0].astype(np.float64)
    expected = -np.log(np.where(targets > 0, scores, 1 - scores)).mean()
    before = subject.learn(inputs, targets)
    assert before.loss == pytest.approx(expected, rel=1e-4)
    assert before.scores[:, 0] == pytest.approx(scores, abs=1e-6)
    assert not subject.module.training


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Learning rates of the steps that are taken."""
    taken: list[float] = []
    original = AdamW.step

    def noted(self: AdamW, rate: float) -> None:
        taken.append(rate)
        original(self, rate)

    monkeypatch.setattr(AdamW, "step", noted)
    return taken


def test_many_labels_at_once_are_bounded_work(steps: list[float]) -> None:
    """Thousands of rows in one chunk take a limited number of larger steps."""
    learner(plan=Online(replay=1)).learn(*stream(BINARY, 5_000))
    assert len(steps) == PARTS * 2


def test_a_beginner_replays_more(steps: list[float]) -> None:
    """While few rows are known an update replays up to five times as many batches; rows that were only replayed count
    too."""
    inputs, targets = stream(BINARY, 300)
    subject, after = learner(plan=Online(replay=2, window=100)), [0]
    for start in range(0, 300, 50):
        learned(subject, inputs.take(slice(start, start + 50)), targets[start : start + 50])
        after.append(len(steps))
    assert np.diff(after).tolist() == [1 + 2 * times for times in (5, 3, 2, 2, 1, 1)]
    for window in (100, 1_000):
        steps.clear()
        subject = learner(plan=Online(replay=2, window=window))
        subject.remember(inputs.take(slice(0, 250)), targets[:250])
        subject.learn(inputs.take(slice(250, 300)), targets[250:])
        assert len(steps) == 1 + 2


def test_a_label_alone_is_not_replayed_a_thousand_times(steps: list[float]) -> None:
    """An update of one label replays the usual number of batches, also while few rows are known."""
    learned(learner(plan=Online(labels=1, replay=2)), *stream(BINARY, 3), size=1)
    assert len(steps) == 3 * (1 + 2)


def test_only_the_window_is_remembered() -> None:
    """Rows that have left the window have no effect on learning."""
    inputs, targets = stream(BINARY, 300)
    other, _ = stream(BINARY, 300, seed=1)
    modules = []
    for kept in (200, 199):
        subject = learner(plan=Online(window=100))
        forgotten = kept - 100
        subject.remember(other.take(slice(0, forgotten)), targets[:forgotten])
        subject.remember(inputs.take(slice(forgotten, 200)), targets[forgotten:200])
        learned(subject, inputs.take(slice(200, 300)), targets[200:])
        modules.append(subject.module)
    assert same(*modules)


def test_what_is_not_finite_is_refused() -> None:
    """Weights that are not finite raise Diverged, which names the fix."""
    subject = Learner(Own(), BINARY, Online(learning_rate=1e38, warm_up=0), 0)
    with pytest.raises(Diverged, match="learning_rate"):
        learned(subject, *stream(BINARY, 500))


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": 0},
        {"seconds": -1.0},
        {"window": 0},
        {"replay": -1},
        {"batch_size": 0},
        {"half_life": 0.0},
        {"learning_rate": float("inf")},
        {"weight_decay": -0.1},
        {"warm_up": -1},
        {"budget_s": 0.0},
    ],
)
def test_a_rhythm_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    """Each value of Online is checked, and the message names it."""
    with pytest.raises(DeclarationError, match=next(iter(wrong))):
        Online(**wrong)  # type: ignore[arg-type]


def test_the_optimiser_is_torchs() -> None:
    """Every step equals torch's fused AdamW to the bit; parameters without a gradient are not changed."""
    own, theirs = ([nn.Parameter(torch.linspace(-1, 1, 5)), nn.Parameter(torch.ones(2))] for _ in range(2))
    ours, reference = AdamW(own, 0.1), torch.optim.AdamW(theirs, weight_decay=0.1, fused=True)
    for rate in (0.1, 0.01, 0.02):
        for parameters in (own, theirs):
            (parameters[0] ** 3).sum().backward()
        reference.param_groups[0]["lr"] = rate
        reference.step()
        reference.zero_grad()
        ours.step(rate)
    assert all(torch.equal(mine, other) for mine, other in zip(own, theirs, strict=True))
    assert own[0].grad is None


def test_what_moves_now_and_then_is_torchs_too() -> None:
    """Parameters that have a gradient only in some steps count those steps, as in torch; dtypes may differ."""
    own, theirs = (
        [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
        for _ in range(2)
    )
    ours, reference = AdamW(own, 0.1), torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.1, fused=True)
    for moving in ((0,), (0, 1, 2), (1,), (), (0, 2)):
        for parameters in (own, theirs):
            for index in moving:
                parameters[index].grad = parameters[index].detach() * 0.3
        ours.step(0.1)
        reference.step()
        reference.zero_grad()
    assert all(torch.equal(mine, other) for mine, other in zip(own, theirs, strict=True))


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_looking_ahead_goes_part_of_the_way(share: float) -> None:
    """Lookahead interpolates between the old and the new parameters; unchanged parameters keep their bits."""
    moved, still = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([0.1, 0.7]))
    optimizer = AdamW([moved, still], 0.0)
    with optimizer.lookahead(share), torch.no_grad():
        moved.add_(4.0)
    assert torch.allclose(moved, torch.tensor([1.0, 2.0]) + 4.0 * share)
    assert torch.equal(still, torch.tensor([0.1, 0.7]))


@pytest.mark.parametrize("task", [*TASKS, Task(Kind.MULTILABEL, ("a", "b", "c"))])
def test_the_slope_is_that_of_the_loss(task: Task) -> None:
    """The gradient that is passed to a ManualGradientModule equals autograd's of each set's loss."""
    subject = learner(task)
    logits = (3 * torch.randn(2, 7, task.outputs, generator=torch.Generator().manual_seed(0))).requires_grad_()
    high = 2 if task.kind in (Kind.BINARY, Kind.MULTILABEL) else 3
    target = torch.randint(0, high, (2, 7, *task.target_shape)).float()
    loss = sum(subject._loss(said, due, 0.7) for said, due in zip(logits, target, strict=True))
    assert isinstance(loss, Tensor)
    (expected,) = torch.autograd.grad(loss, logits)
    due = output_targets(task.kind, target, task.outputs)
    assert torch.allclose(subject._loss_gradient(due, 0.7, logits.detach()), expected, atol=1e-6)


WAKING = """
import sys
import numpy as np
from tailrace.declaration.online import Online
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.tabular.network import TabularNetwork
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.loop import warm_up
warm_up()
task = Task(Kind.BINARY)
rows = Inputs(np.zeros((2, 1), np.float32), np.zeros((2, 0), np.int64))
Learner(TabularNetwork(1, [False], [], task), task, Online(), 0).learn(rows, np.zeros(2, np.float32))
print([name for name in sys.modules if name.startswith("torch._dynamo")])
"""


def test_learning_does_not_wake_torchs_compiler() -> None:
    """Runs and updates do not import torch's compiler, which takes as long as all other imports together."""
    done = subprocess.run([sys.executable, "-c", WAKING], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
