"""Example weights: deliberate imbalance without bias, and calibrated releases."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from tailrace.declaration.data import Data, History, Recency, Window
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import losses
from tailrace.inference.models.tabular.network import TabularNetwork
from tailrace.retrain.selection.buffer import Row, Selection
from tailrace.retrain.selection.weights import chances, class_weights, weigh
from tailrace.retrain.training.loop import score, train

BINARY = Task(Kind.BINARY)
THREE = Task(Kind.MULTICLASS, ("a", "b", "c"))


def row(offset: int, target: float, score: float = 0.5, *, delay: float = 1.0, implicit: bool = False) -> Row:
    return Row(0, offset, float(offset), offset + delay, target, b"{}", None, 1, [score], implicit)


def chosen(rows: list[Row], fresh: int = 0) -> Selection:
    return Selection(rows, fresh, [], {0: (0, len(rows))})


def plan(data: Data) -> Training:
    return Training(data=data)


def test_without_words_every_example_counts_the_same() -> None:
    """A plain window has no weights."""
    selection = chosen([row(n, n % 2) for n in range(10)])
    assert weigh(selection, BINARY, plan(Window()), warm=False) == (selection, None, None)


def test_rare_classes_count_more_up_to_the_cap() -> None:
    """90 : 9 : 1 with a cap of 20 gives 1 : 10 : 20."""
    rows = [row(n, 0.0 if n < 90 else 1.0 if n < 99 else 2.0) for n in range(100)]
    assert class_weights(rows, THREE, 20).tolist() == [1, 10, 20]
    weighed = weigh(chosen(rows), THREE, plan(Window(balance=20)), warm=False)
    assert weighed.weights is not None
    assert weighed.weights.mean() == pytest.approx(1)
    assert weighed.weights[[89, 90, 99]] / weighed.weights[0] == pytest.approx([1, 10, 20])
    assert weighed.prior == pytest.approx((0, np.log(10), np.log(20)))


@pytest.mark.parametrize("balance", [1.0, 10.0, 50.0])
def test_a_balanced_model_is_calibrated(balance: float) -> None:
    """A logistic model fitted with weights and prior predicts the true rates, 1 % and 9 %; without the prior it does
    not."""
    random = np.random.default_rng(0)
    feature = random.integers(0, 2, 40_000)
    target = (random.random(40_000) < np.where(feature, 0.09, 0.01)).astype(float)
    rows = [row(n, value) for n, value in enumerate(target)]
    weighed = weigh(chosen(rows), BINARY, plan(Window(balance=balance)), warm=False)
    weights = np.ones(len(rows)) if weighed.weights is None else weighed.weights
    prior = weighed.prior[0] if weighed.prior else 0.0
    for value, truth in ((0, target[feature == 0].mean()), (1, target[feature == 1].mean())):
        group = feature == value
        weighted_rate = (weights * target)[group].sum() / weights[group].sum()
        logit = np.log(weighted_rate / (1 - weighted_rate)) - prior  # where the weighted loss of logit + prior is least
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(truth, rel=1e-3)
        assert balance == 1 or weighted_rate > 3 * truth


def test_a_network_trained_with_balance_is_calibrated() -> None:
    """The default network, trained with weights of up to 50, predicts 3 % where 3 % are positive."""
    random = np.random.default_rng(0)
    numbers = random.normal(size=(6_000, 3)).astype(np.float32)
    targets = (random.random(6_000) < 1 / (1 + np.exp(4 - numbers[:, 0]))).astype(np.float32)
    inputs = Inputs(numbers, np.zeros((6_000, 0), np.int64))
    made = Training(data=Window(balance=50), batch_size=256, epochs=4)
    weighed = weigh(chosen([row(n, float(target)) for n, target in enumerate(targets)]), BINARY, made, warm=False)
    said = []
    for prior in (weighed.prior, None):
        torch.manual_seed(0)
        module = TabularNetwork(3, [False] * 3, [], BINARY)
        train(
            module, inputs, targets, made, BINARY,
            fresh=None, seed=0, report=lambda step, steps, loss: None, weights=weighed.weights, prior=prior,
        )  # fmt: skip
        said.append(float(score(module, inputs, BINARY).mean()))
    assert said[0] == pytest.approx(targets.mean(), rel=0.2)
    assert said[1] > 5 * targets.mean()


def test_hard_examples_are_drawn_more_often_and_the_loss_is_unbiased() -> None:
    """A third of the examples gives an unbiased sum of losses; hard examples are over-represented, and new ones all
    stay."""
    random = np.random.default_rng(0)
    scores, targets = random.beta(1, 3, 20_000), (random.random(20_000) < 0.25).astype(float)
    rows = [row(n, target, score) for n, (score, target) in enumerate(zip(scores, targets, strict=True))]
    selection, weights, _ = weigh(chosen(rows, fresh=500), BINARY, plan(History(hard=1 / 3)), warm=False)
    assert weights is not None
    assert selection.train[-500:] == rows[-500:]
    assert selection.fresh == 500
    assert len(selection.train) == pytest.approx(500 + 19_500 / 3, rel=0.03)

    def mean_loss(given: list[Row], weight: np.ndarray) -> float:
        found = losses(
            "log_loss", Kind.BINARY, np.array([r.scores for r in given]), np.array([r.target for r in given])
        )
        return float((found * weight).sum() / weight.sum())

    whole = mean_loss(rows, np.ones(len(rows)))
    assert mean_loss(selection.train, weights) == pytest.approx(whole, rel=0.02)
    assert mean_loss(selection.train, np.ones(len(weights))) > 1.5 * whole
    assert float((np.array([r.target for r in selection.train]) * weights).sum() / weights.sum()) == pytest.approx(
        targets.mean(), rel=0.05
    )


def test_recency_weighs_a_cold_run_only() -> None:
    """An example one half-life older counts half; a warm run draws by age instead."""
    rows = [row(n, n % 2) for n in range(200)]
    weights = weigh(chosen(rows), BINARY, plan(Recency(50)), warm=False).weights
    assert weights is not None
    assert weights[149] / weights[199] == pytest.approx(0.5)
    assert weigh(chosen(rows), BINARY, plan(Recency(50)), warm=True).weights is None


def test_late_positives_are_corrected_where_labels_are_implied() -> None:
    """The weighted positive rate of the join's rows is nearer to the truth than the unweighted one."""
    random = np.random.default_rng(0)
    rows = []
    for offset in range(20_000):
        delay = random.exponential(1.0)
        came = random.random() < 0.2 and delay < 1
        rows.append(row(offset, float(came), 0.2, delay=delay if came else 1.0, implicit=not came))
    weights = weigh(chosen(rows), BINARY, plan(Window(late=True)), warm=True, wait=1.0).weights
    assert weights is not None
    target = np.array([r.target for r in rows])
    assert abs(target.mean() - 0.2) > 0.06
    assert (target * weights).sum() / weights.sum() == pytest.approx(0.2, abs=0.01)


def test_words_that_do_not_fit_a_regression_change_nothing() -> None:
    """Options for classes and late positives have no effect on a regression."""
    rows = [row(n, n * 1.5) for n in range(50)]
    weighed = weigh(chosen(rows), Task(Kind.REGRESSION), plan(Window(balance=9, late=True)), warm=False, wait=1.0)
    assert (weighed.weights, weighed.prior) == (None, None)


@pytest.mark.parametrize("data", [Window(balance=9), Recency(5), History(hard=0.5), Window(late=True)])
def test_nothing_to_learn_from_is_weighed_too(data: Data) -> None:
    """An empty selection gives no weights and no error."""
    assert weigh(chosen([]), BINARY, plan(data), warm=False, wait=1.0).weights is None


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99, 1.0])
def test_chances_add_up(share: float) -> None:
    """Probabilities lie between 0 and 1, are proportional to difficulty below 1, and sum to the share."""
    difficulty = np.random.default_rng(1).pareto(1.5, 1_000) + 0.1
    found = chances(difficulty, share)
    assert found.sum() == pytest.approx(share * 1_000)
    assert ((found > 0) & (found <= 1)).all()
    ratio = (found / difficulty)[found < 1]
    assert len(ratio) < 2 or ratio.std() < 1e-9


def test_a_plan_with_a_policy_survives_a_journey() -> None:
    """A plan with a data policy survives encoding for the training process and for a release."""
    made = plan(Recency(500, mature="12h", balance=3))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Training) == made
    assert msgspec.convert(msgspec.to_builtins(made), Training) == made
