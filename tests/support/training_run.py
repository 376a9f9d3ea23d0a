"""Training runs of a small network on made-up rows, in the test's own process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.hooks import OnlineModule
from tailrace.inference.releases.manifest import serialise
from tailrace.retrain.training.loop import TrainResult, train

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
