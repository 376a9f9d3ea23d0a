"""Construction of modules, the default network, and scores of raw outputs."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.event import Event
from tailrace.declaration.features import Category, Number, Vector
from tailrace.declaration.task import Kind, Task, base_rate_scores
from tailrace.errors import DeclarationError
from tailrace.inference.models.encoding import Features
from tailrace.inference.models.outputs import activate, predicted
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.tabular.layers import Layers, masks, set_gradients
from tailrace.inference.models.tabular.linear import OFFSET, PACE, REACH, STEP, TOGETHER, Linear, output_targets
from tailrace.inference.models.tabular.mixing import SHARED, STEEPEST, TEMPER, Mixer
from tailrace.inference.models.tabular.network import CLIP, HIDDEN, TAKEN, TabularNetwork

BINARY = Task(Kind.BINARY)
THREE = Task(Kind.MULTICLASS, ("a", "b", "c"))
REGRESSION = Task(Kind.REGRESSION)
SEVERAL = Task(Kind.MULTILABEL, ("a", "b"))


class Row(Event):
    x: Number
    gust: Number | None = None
    carrier: Category
    v: Annotated[list[float], Vector(2)]


FEATURES = Features.of(Row)


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    events = [
        Row(x=1000 + 50 * x, gust=None if x > 1 else x, carrier=str(i % 7), v=[x, 5.0])
        for i, x in enumerate(random.normal(size=n).tolist())
    ]
    inputs = FEATURES.encode(events)
    return torch.from_numpy(inputs.numbers), torch.from_numpy(inputs.categories)


def ones(task: Task, n: int) -> Tensor:
    """Targets of n rows: 1, or all labels."""
    return torch.ones(n, *task.target_shape)


def alternating(task: Task, n: int) -> Tensor:
    """Targets of n rows: 0 and 1 in turns; in a multi-label task the first label in turns, the others never."""
    targets = torch.arange(n) % 2 * 1.0
    return torch.stack((targets, *[torch.zeros(n)] * (task.outputs - 1)), 1) if task.target_shape else targets


def network(task: Task) -> TabularNetwork:
    module = ModelSpec(FEATURES, task).build()
    assert isinstance(module, TabularNetwork)
    return module


@pytest.mark.parametrize("task", [BINARY, THREE, SEVERAL, REGRESSION])
def test_a_fresh_network_says_nearly_the_base_rate(task: Task) -> None:
    """A prepared, untrained default model predicts the targets' base rate, for every kind of task."""
    numbers, categories = rows(400)
    quarter = (torch.arange(400) % 4 == 0).float()
    targets = {
        Kind.BINARY: quarter,
        Kind.MULTICLASS: torch.arange(400) % 3,
        Kind.MULTILABEL: torch.stack((quarter, torch.arange(400) % 2), 1),
        Kind.REGRESSION: 9 * quarter,
    }[task.kind]
    module = network(task)
    module.prepare(numbers, categories, targets.float())
    scores = activate(task, module(numbers, categories))
    expected = {
        Kind.BINARY: [0.25],
        Kind.MULTICLASS: [1 / 3] * 3,
        Kind.MULTILABEL: [0.25, 0.5],
        Kind.REGRESSION: [2.25],
    }[task.kind]
    assert scores.mean(0).tolist() == pytest.approx(expected, abs=0.15 * max(1.0, max(expected)))
    assert scores.shape == (400, task.outputs)


def test_the_default_network_learns() -> None:
    """A few steps of AdamW find a signal in a number, a category and a missing value."""
    numbers, categories = rows(600)
    missing = numbers[:, 1].isnan()
    targets = ((numbers[:, 0] > 1000) ^ (categories[:, 0] == categories[0, 0]) | missing).float()
    module = network(BINARY)
    module.prepare(numbers, categories, targets)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(module(numbers, categories)[:, 0], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.15


def test_normalisation_is_set_once() -> None:
    """Preparing again with other data changes nothing that trained weights rely on."""
    numbers, categories = rows(200)
    module = network(BINARY)
    module.prepare(numbers, categories, torch.ones(200))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    varied = (0, 1, 2)
    module.prepare(numbers * 3 + 7, categories, torch.zeros(200))
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (before["rate"][list(varied)] > 0).all()


def test_values_that_do_not_vary_settle_no_scale() -> None:
    """A regression network predicts a constant first window; the first window that varies sets the scale for good."""
    numbers, categories = rows(200)
    module = network(REGRESSION)
    for constant in (7.0, 1e6):
        module.prepare(numbers, categories, torch.full((200,), constant))
        assert (module.shift.item(), module.scale.item()) == (constant, 1.0)
    module.prepare(numbers, categories, torch.linspace(0.0, 100.0, 200))
    module.prepare(numbers, categories, torch.linspace(0.0, 1.0, 200))
    assert module.shift.item() == pytest.approx(50.0)
    assert module.scale.item() == pytest.approx(29.0, abs=0.5)


def test_a_constant_column_is_silent_until_it_varies() -> None:
    """A column that was constant at first has no effect, however far it moves, until the next preparation."""
    numbers, categories = rows(200)
    module = network(BINARY).eval()
    module.prepare(numbers, categories, torch.ones(200))
    moved = numbers.clone()
    moved[:, 3] = torch.linspace(-1e6, 1e6, 200)
    assert torch.equal(module(numbers, categories), module(moved, categories))
    module.prepare(moved, categories, torch.ones(200))
    assert not torch.equal(module(numbers, categories), module(moved, categories))


def test_extreme_and_missing_inputs_give_finite_outputs() -> None:
    """Extreme values and rows of missing values give finite outputs."""
    numbers, categories = rows(100)
    module = network(REGRESSION)
    module.prepare(numbers, categories, torch.randn(100))
    extreme = torch.tensor([[3e38] * 4, [-3e38] * 4, [math.nan] * 4])
    assert module(extreme, torch.zeros(3, 1, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize("task", [BINARY, THREE, REGRESSION])
def test_members_that_err_are_trusted_less(task: Task) -> None:
    """A member that makes the ensemble worse on the newest rows gets less weight, but keeps its even part."""
    numbers, categories = rows(200)
    targets = alternating(task, 200)
    module = network(task)
    module.prepare(numbers, categories, targets)
    with torch.no_grad():
        module.head.bias[0] += torch.linspace(5.0, -5.0, task.outputs) if task.outputs > 1 else 5.0
    module.absorb(numbers, categories, targets)
    linear, wrong, other = module.mixer.weights.tolist()
    assert linear + wrong + other < 1.0
    assert SHARED / 3 <= wrong < min(linear, other)


@pytest.mark.parametrize("task", [BINARY, THREE, SEVERAL, REGRESSION])
def test_members_that_are_too_sure_are_tempered(task: Task) -> None:
    """The base rate gets most of the weight while all members are far from the labels, and loses it later."""
    numbers, categories = rows(600)
    targets = alternating(task, 600)
    module = network(task)
    module.prepare(numbers, categories, targets)
    far = torch.linspace(5.0, -5.0, task.outputs) if task.outputs > 1 else torch.tensor([5.0])

    def trust(says: Tensor) -> float:
        with torch.no_grad():
            module.head.bias[:] = says
            module.linear.bias[:] = says
        module.absorb(numbers, categories, targets)
        return float(module.mixer.weights.sum())

    assert trust(far) < 0.3
    for _ in range(20):
        trusted = trust(torch.zeros_like(far))
    assert trusted > 0.7


@pytest.mark.parametrize("task", [BINARY, THREE, SEVERAL, REGRESSION])
def test_what_never_learns_online_is_not_tempered(task: Task) -> None:
    """Without online labels the ensemble is the plain mean of its members, without the base rate."""
    module = network(task)
    module.prepare(*rows(200), alternating(task, 200))
    with torch.no_grad():
        module.linear.weight.add_(0.1)
        numbers, categories = rows(50, seed=1)
        expected = module.members(numbers, categories).mean(1)
        assert torch.allclose(module(numbers, categories), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", [BINARY, THREE, SEVERAL, REGRESSION])
def test_weights_follow_the_gradient_of_the_mixtures_loss(task: Task) -> None:
    """The mixer sums autograd's gradient of the mixture's loss with respect to the members' weights."""
    numbers, categories = rows(TAKEN)
    targets = alternating(task, TAKEN)
    module = network(task)
    module.prepare(numbers, categories, targets)
    module.scale.fill_(2.0)
    with torch.no_grad():
        module.linear.weight.add_(0.1)
        said = module.members(numbers, categories)
    weights = module.mixer.weights.clone().requires_grad_()
    added = ((said - module.shift) * weights[:, None]).sum(1)
    mixed = added + module.shift
    due = output_targets(task.kind, targets, task.outputs).float()
    if task.kind is Kind.REGRESSION:
        loss = ((mixed - due) / module.scale).square().sum() / 2
    elif task.kind is Kind.MULTICLASS:
        loss = functional.cross_entropy(mixed, targets.long(), reduction="sum")
    else:
        loss = functional.binary_cross_entropy(predicted(task.kind, mixed), due, reduction="sum") / task.outputs
    (expected,) = torch.autograd.grad(loss, weights)
    module.absorb(numbers, categories, targets)
    assert torch.allclose(module.mixer.summed, expected, rtol=1e-3, atol=1e-4)


def test_one_outlier_pulls_with_limited_force() -> None:
    """An outlier has the gradient of a value CLIP deviations away; each gradient is at most STEEPEST."""
    numbers, categories = rows(200)
    module = network(REGRESSION)
    module.prepare(numbers, categories, torch.linspace(0.0, 1.0, 200))
    said = torch.tensor([0.02, -0.04, 1e3]).view(1, 3, 1) * module.scale + module.shift
    module._member_outputs = lambda *_: said  # type: ignore[method-assign]
    module.absorb(numbers[:1], categories[:1], torch.tensor([1e6]))
    expected = torch.tensor([-CLIP * 0.02, CLIP * 0.04, -STEEPEST])
    assert torch.allclose(module.mixer.summed, expected, rtol=1e-3)


def test_the_base_rate_has_its_part_once_labels_tell() -> None:
    """Without gradients all members have equal weight, and the base rate TEMPER times that before the even part."""
    mixer = Mixer(3)
    mixer.absorb(torch.zeros(1, 3))
    assert mixer.weights.tolist() == pytest.approx([(1 - SHARED) / (3 + TEMPER) + SHARED / 3] * 3)


def test_many_rows_weigh_like_many_updates() -> None:
    """The mixer's weights are equal for rows that come in one chunk or in several."""
    numbers, categories = rows(10 * TAKEN)
    targets = (numbers[:, 0] > 1000).float()
    whole, parted = network(BINARY), network(BINARY)
    for module in (whole, parted):
        module.prepare(numbers, categories, targets)
    said = whole.members(numbers, categories).detach()
    with torch.no_grad():
        whole._member_outputs = lambda *_: said  # type: ignore[method-assign]
        whole.absorb(numbers, categories, targets)
        for start in range(0, len(targets), TAKEN):
            part = slice(start, start + TAKEN)
            parted._member_outputs = lambda *_, part=part: said[part]  # type: ignore[method-assign]
            parted.absorb(numbers[part], categories[part], targets[part])
    assert torch.allclose(whole.mixer.weights, parted.mixer.weights, atol=1e-6)


def test_pieces_say_what_the_whole_says() -> None:
    """Rows that are scored in pieces get the scores that they get alone; no rows give no scores."""
    numbers, categories = rows(1_100)
    module = network(THREE)
    module.prepare(numbers, categories, torch.arange(1_100) % 3.0)
    scores = module(numbers, categories)
    assert torch.allclose(
        scores[[0, 700, 1_099]], module(numbers[[0, 700, 1_099]], categories[[0, 700, 1_099]]), atol=1e-5
    )
    assert module(numbers[:0], categories[:0]).shape == (0, 3)


def test_hundreds_of_columns_are_not_binned() -> None:
    """The more number columns, the fewer bins each has, so that the cost of a row stays bounded."""
    sizes = [TabularNetwork(width, [False] * width, [], BINARY).lows.numel() for width in (5, 20, 70, 500)]
    assert sizes == [80, 160, 140, 0]


def test_building_is_seeded_and_leaves_the_random_state_alone() -> None:
    """Equal seeds give equal weights, and the process's own random state does not change."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (ModelSpec(FEATURES, BINARY).build(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(expected, torch.rand(3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


class Own(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        out: Tensor = self.layer(numbers.nan_to_num())[:, 0]
        return out


def test_a_factory_may_take_nothing_or_features_and_task() -> None:
    """A module class with defaults and a function of (features, task) are both factories."""
    assert isinstance(ModelSpec(FEATURES, BINARY, Own).build(), Own)
    widened = ModelSpec(FEATURES, BINARY, lambda features, task: Own(len(features.numbers) + task.outputs)).build()
    assert isinstance(widened, Own)
    assert widened.layer.in_features == 5


def test_scores_are_probabilities_or_values() -> None:
    """Sigmoid, softmax, identity; one output may come without its dimension."""
    assert activate(BINARY, torch.zeros(2)).tolist() == [[0.5], [0.5]]
    assert activate(THREE, torch.zeros(1, 3)).sum().item() == pytest.approx(1.0)
    assert activate(REGRESSION, torch.tensor([[7.0]])).tolist() == [[7.0]]
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for 2 rows, expected \(2, 1\)"):
        activate(BINARY, torch.zeros(2, 3))


def test_the_base_rate_is_checked() -> None:
    """Declared or even odds; a wrong count or a rate above one is a DeclarationError."""
    assert base_rate_scores(BINARY, None) == [0.5]
    assert base_rate_scores(BINARY, 0.24) == [0.24]
    assert base_rate_scores(THREE, None) == pytest.approx([1 / 3] * 3)
    assert base_rate_scores(THREE, [0.5, 0.25, 0.25]) == [0.5, 0.25, 0.25]
    assert (base_rate_scores(REGRESSION, None), base_rate_scores(REGRESSION, 12)) == ([0.0], [12.0])
    with pytest.raises(DeclarationError, match="needs 3"):
        base_rate_scores(THREE, 0.5)
    with pytest.raises(DeclarationError, match="between 0 and 1"):
        base_rate_scores(BINARY, 24)


def test_masks_drop_their_share_and_keep_the_mean() -> None:
    """A tenth of a mask is zero and its mean is one; draws differ, and a seed repeats them."""
    torch.manual_seed(3)
    (first, other), (second, _) = masks((64, 5), (101, 101), 0.1), masks((64, 5), (101, 101), 0.1)
    torch.manual_seed(3)
    assert torch.equal(first, masks((64, 5), (101, 101), 0.1)[0])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == (64, 5, 101)
    assert float((first == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(first.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("buckets", [(), (4, 8)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_learning_has_autograds_gradients(
    buckets: tuple[int, ...], outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The written-out gradients equal those that autograd computes for the same layers."""
    monkeypatch.setattr("tailrace.inference.models.tabular.network.DROPPED", 0.0)
    task = REGRESSION if outputs == 1 else THREE
    module = TabularNetwork(3, [True, False, False], buckets, task)
    module.scale.fill_(2.0 if outputs == 1 else 1.0)
    taken = module.encode(torch.randn(2, 5, 3), torch.randint(0, 4, (2, 5, len(buckets))))
    encoded, rows = taken[0], taken[1] if buckets else None
    wanted, said = torch.randn(2, 5, outputs), []

    def slope(outputs: Tensor) -> Tensor:
        said.append(outputs)
        return wanted.clone()

    module.descend(taken, slope)
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    again = module._networks(encoded, rows) * module.scale + module.shift
    again.backward(wanted)
    assert torch.allclose(said[0], again, atol=1e-6)
    for name, parameter in module.named_parameters():
        if name.startswith("linear"):
            assert found[name] is None
        else:
            gradients = found[name], parameter.grad
            assert gradients[0] is not None
            assert gradients[1] is not None
            assert torch.allclose(gradients[0], gradients[1], atol=1e-6), name


def test_what_is_dropped_moves_nothing() -> None:
    """With dropout the gradients equal autograd's for the masked layers."""
    module = TabularNetwork(3, [False] * 3, (), BINARY)
    encoded, rows, *_ = module.encode(torch.randn(2, 1, 3), torch.empty(2, 1, 0, dtype=torch.int64))
    one, two = masks((2, 1), HIDDEN, 0.5)
    said = []

    def slope(outputs: Tensor) -> Tensor:
        said.append(outputs)
        return torch.ones_like(outputs)

    set_gradients(encoded, rows, (one, two), (*module.hidden, module.head), None, 0.5, slope)
    first, second = (layer for layer in module.hidden if isinstance(layer, Layers))
    inner = first(encoded).relu() * one
    again = module.head(second(inner).relu() * two)
    gradient = torch.autograd.grad(again.sum(), first.weight)[0]
    assert torch.allclose(said[0], again, atol=1e-6)
    assert first.weight.grad is not None
    assert torch.allclose(first.weight.grad, gradient, atol=1e-6)


@pytest.mark.parametrize("task", [BINARY, THREE, REGRESSION])
def test_many_columns_do_not_shake_the_linear_part(task: Task) -> None:
    """Rows of 500 large columns with changing labels move the linear model no further than one error may."""
    linear = Linear(500, 0, (), task)
    places = torch.empty(16 * TOGETHER, 0, dtype=torch.int64)
    rows = torch.full((16 * TOGETHER, 500), 8.0)
    targets = (torch.arange(len(rows)) // TOGETHER % max(task.outputs, 2)).float()
    with torch.no_grad():
        for _ in range(20):
            linear.absorb(rows, places, targets, torch.zeros(task.outputs))
        assert 0.0 < float(linear(rows[:1], places[:1]).abs().max()) <= 4.0


def absorbed(task: Task, width: int, size: float, learned: int, rows: int = TOGETHER) -> Tensor:
    """Outputs of a linear model for one row, after `learned` rows and a few equal rows of this width and size."""
    linear = Linear(width, 0, (), task)
    linear.learned.fill_(learned)
    places = torch.empty(rows, 0, dtype=torch.int64)
    with torch.no_grad():
        linear.absorb(torch.full((rows, width), size), places, ones(task, rows), torch.zeros(task.outputs))
        said: Tensor = linear(torch.full((1, width), size), places[:1])[0]
    return said


@pytest.mark.parametrize("task", [BINARY, SEVERAL, THREE, REGRESSION])
@pytest.mark.parametrize("width", [1, 20, 90, 200, 500])
@pytest.mark.parametrize("size", [0.5, 8.0])
def test_equal_rows_that_go_together_do_not_overshoot(task: Task, width: int, size: float) -> None:
    """Equal rows that take their steps together move the prediction no further than rows that go one by one."""
    said = absorbed(task, width, size, learned=0)
    due, farthest = output_targets(task.kind, ones(task, 1), task.outputs)[0], torch.zeros(1, task.outputs)
    for _ in range(TOGETHER):
        farthest += REACH[task.kind] * (due - predicted(task.kind, farthest))
    assert 0.0 < said.abs().max() <= farthest.abs().max() * (1 + 1e-5)


@pytest.mark.parametrize(
    ("task", "width", "together"),
    [
        (BINARY, 100, TOGETHER),
        (BINARY, 390, 2),
        (SEVERAL, 790, 1),
        (BINARY, 4_000, 1),
        (THREE, 190, 2),
        (REGRESSION, 390, TOGETHER),
    ],
)
def test_rows_go_together_where_they_need_not_share_the_least_step(task: Task, width: int, together: int) -> None:
    """Up to TOGETHER rows share the largest allowed change, fewer where that would give steps below STEP; values always
    share it."""
    one, *more = (float(absorbed(task, width, 1.0, 1_000_000, rows).abs().max()) for rows in range(1, 2 * TOGETHER))
    equal = [rows for rows, said in enumerate(more, 2) if said == pytest.approx(rows * one, rel=1e-4)]
    assert max([1, *equal]) == together
    wrong = {Kind.REGRESSION: 1.0, Kind.MULTICLASS: 2 / 3}.get(task.kind, 0.5)
    reach = REACH[task.kind] / (width + 1)
    assert one == pytest.approx(min(reach / together, STEP) * wrong * (width + 1), rel=1e-4)


@pytest.mark.parametrize("task", [BINARY, SEVERAL, THREE, REGRESSION])
def test_the_linear_part_learns_most_from_the_first_labels(task: Task) -> None:
    """The step of a row decreases from PACE / OFFSET to STEP with the number of rows learned."""
    learned = (0, 50, 500, 5_000, 50_000)
    moves = [float(absorbed(task, 1, 0.1, rows, 1).abs().max()) for rows in learned]
    steps = [max(STEP, PACE / (OFFSET + rows + 1)) for rows in learned]
    assert moves == pytest.approx([moves[-1] * step / STEP for step in steps], rel=1e-4)
    _, early, later, late, latest = moves
    assert early > 2 * later > 2 * late > 0
    assert late == pytest.approx(latest)


def test_rows_count_as_learned_once() -> None:
    """A run counts rows when it begins and an update when it absorbs them; preparation for updates counts none."""
    numbers, categories = rows(200)
    targets = torch.arange(200) % 2 * 1.0
    online, trained = network(BINARY).eval(), network(BINARY).train()
    for module in (online, trained):
        module.prepare(numbers, categories, targets)
    assert (float(online.linear.learned), float(trained.linear.learned)) == (0.0, 200.0)
    online.absorb(numbers, categories, targets)
    trained.prepare(numbers[:100], categories[:100], targets[:100])
    trained.absorb(numbers, categories, targets)
    assert (float(online.linear.learned), float(trained.linear.learned)) == (200.0, 400.0)
