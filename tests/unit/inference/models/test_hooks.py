"""Training hooks: only those of an OnlineModule are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tailrace import Event, EventTime, Key, Label, Number, Online, Pipeline, Training, triggers
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.hooks import ManualGradientModule, OnlineModule
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.loop import train
from tailrace.testing import Harness, ManualClock

START = 1_767_225_600.0
BINARY = Task(Kind.BINARY)
HOOKS = ("prepare", "members", "absorb", "track", "pace", "half_lives", "encode", "descend")


class Reading(Event):
    """A number at a time."""

    id: Key
    at: EventTime
    x: Number


class OwnNames(nn.Module):
    """A user's ensemble whose attributes have the names of all hooks, with other meanings."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
        self.absorb = nn.Linear(1, 1)
        self.encode = nn.Identity()
        self.track = self.pace = "mine"
        self.prepare, self.half_lives, self.descend = {"a": 1}, None, 7

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Mean of the members' logits."""
        x = self.encode(numbers.nan_to_num())
        logits: Tensor = torch.stack([member(x) for member in self.members]).mean(0) + self.absorb(x)
        return logits


def test_a_users_attributes_are_not_hooks() -> None:
    """A module with ordinary attributes of every hook's name trains in a run, learns online and is released by both."""
    assert all(hasattr(OwnNames(), name) for name in HOOKS)
    plan = Training(min_examples=60, holdout_least=50, epochs=8, batch_size=16, learning_rate=0.03)
    for options in ({"retrain": [triggers.Labels(100)], "online": False}, {"online": Online(labels=20, seconds=0.01)}):
        clock = ManualClock(START)
        pipeline = Pipeline("own", event=Reading, label=Label("y"), model=OwnNames, training=plan, **options)
        with Harness(pipeline, clock=clock) as kit:
            events = [Reading(id=f"r{n}", at=START + 60 * n, x=float(np.sin(n))) for n in range(150)]
            clock.now = START + 60 * 150
            kit.send(*events)
            for event in events:
                kit.label(event.id, event.x > 0)
            kit.run_until_idle()
            assert kit.releases()


class Recorder(OnlineModule):
    """A module that records which hooks are called, in which mode."""

    pace = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.calls: list[tuple[str, bool]] = []

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        logits: Tensor = self.layer(numbers)
        return logits

    def prepare(self, *rows: Tensor) -> None:
        self.calls.append(("prepare", self.training))

    def members(self, numbers: Tensor, categories: Tensor) -> Tensor:
        self.calls.append(("members", self.training))
        return torch.stack((self(numbers, categories), self(numbers, categories)), 1)

    def absorb(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> Tensor:
        self.calls.append(("absorb", self.training))
        return super().absorb(numbers, categories, targets)

    def track(self, numbers: Tensor) -> None:
        self.calls.append(("track", self.training))


def rows(count: int = 64) -> tuple[Inputs, np.ndarray[Any, np.dtype[np.float32]]]:
    numbers = np.linspace(-1, 1, count, dtype=np.float32)[:, None]
    return Inputs(numbers, np.zeros((count, 0), np.int64)), (numbers[:, 0] > 0).astype(np.float32)


def test_hooks_are_called_as_documented() -> None:
    """A run prepares and trains members in train mode; an online update prepares, absorbs and tracks in eval mode."""
    module, (inputs, targets) = Recorder(), rows()
    train(module, inputs, targets, Training(epochs=1), BINARY, fresh=None, seed=0, report=lambda *_: None)
    assert module.calls == [("prepare", True), ("members", True)]
    module.calls.clear()
    learner = Learner(module, BINARY, Online(), 0)
    learner.learn(inputs, targets)
    learner.learn(inputs, targets)
    update = [("absorb", False), ("track", False)]
    assert module.calls == [("prepare", False), *update, *update]


def test_hooks_have_defaults() -> None:
    """A module that overrides no hook learns in a run and online; manual gradients must be defined."""

    class Plain(OnlineModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
            logits: Tensor = self.layer(numbers)
            return logits

    module, (inputs, targets) = Plain(), rows()
    before = module.layer.weight.item()
    train(module, inputs, targets, Training(epochs=1), BINARY, fresh=None, seed=0, report=lambda *_: None)
    trained = module.layer.weight.item()
    Learner(module, BINARY, Online(), 0).learn(inputs, targets)
    assert len({before, trained, module.layer.weight.item()}) == 3
    with pytest.raises(NotImplementedError):
        ManualGradientModule().encode(torch.empty(1, 1, 1), torch.empty(1, 1, 0))
