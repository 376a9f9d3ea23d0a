"""Frozen parameters keep their values; a run may start from the weights of the champion."""

from __future__ import annotations

import msgspec
import pytest
import torch
from support import retrain_pipeline as tiny
from support.jobs import job
from support.training_run import deep, trained
from torch import nn

from tailrace.declaration.training import Training
from tailrace.errors import DeclarationError
from tailrace.inference.releases.manifest import load_state
from tailrace.retrain.training.fine_tuning import freeze, transfer_weights
from tailrace.retrain.worker.client import Trainer, TrainingFailed


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


def test_nothing_frozen_leaves_a_users_own_choice() -> None:
    """Parameters that the factory froze stay frozen."""
    module = deep()
    module.body.requires_grad_(False)
    assert len(freeze(module, ())) == 2


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
    assert transfer_weights(module, old.state_dict()) == 2
    assert torch.equal(module.body.get_parameter("0.weight"), old.body.get_parameter("0.weight"))
    assert torch.equal(module.head.weight, fresh["head.weight"])
