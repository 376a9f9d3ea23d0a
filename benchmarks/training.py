"""Rows per second of a training run, compared with a plain loop over a Dataset of single rows and a DataLoader.

Both train the same network on the same rows with the same batch size, optimizer and clipping, on one CPU thread, in
alternating rounds; each figure is the best of its rounds. The comparison is about the loop, which matters most with
small networks and large batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import Row, at_least
from benchmarks.workload import NUMBERS, pipeline
from tailrace.declaration.training import Training
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.training.loop import train, warm_up
from tailrace.retrain.training.objective import Objective

GROUP = "training"
BAR = 5.0
FLAT = pipeline("flat")
Targets: TypeAlias = NDArray[np.float32]
Make: TypeAlias = Callable[[], nn.Module]


class Small(nn.Module):
    """A small network of a user, for which the loop around it is most of the cost."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NUMBERS, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Logits [n, 1]."""
        logits: Tensor = self.layers(numbers)
        return logits


class Case(NamedTuple):
    """A network and batch size. `bar`: the speed-up that the run must reach; None: no bar."""

    what: str
    make: Make
    batch_size: int
    bar: float | None = None


CASES = (
    Case("small user network", Small, 1_024, BAR),
    Case("small user network", Small, 64),
    Case("default network", lambda: ModelSpec.of(FLAT).build(), 1_024),
    Case("default network", lambda: ModelSpec.of(FLAT).build(), 64),
)


def measure(rows: int, rounds: int) -> list[Row]:
    """Measure every case over one pass of `rows` rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        warm_up()
        return [row for case in CASES for row in _compare(case, rows, rounds)]
    finally:
        torch.set_num_threads(threads)


def _compare(case: Case, rows: int, rounds: int) -> list[Row]:
    numbers = np.random.default_rng(1).normal(size=(rows, NUMBERS)).astype(np.float32)
    inputs, targets = Inputs(numbers, np.zeros((rows, 0), np.int64)), (numbers[:, 0] > 0).astype(np.float32)
    plan = Training(epochs=1, batch_size=case.batch_size)
    ours = theirs = 0.0
    for _ in range(max(rounds, 1)):
        ours = max(ours, rows / _run(case.make(), inputs, targets, plan))
        theirs = max(theirs, rows / _plain(case.make(), inputs, targets, plan))
    what = f"{case.what}, {case.batch_size:,} rows a step"
    times = f"{what}: speed-up"
    row = Row(GROUP, times, ours / theirs) if case.bar is None else at_least(GROUP, times, ours / theirs, case.bar)
    return [Row(GROUP, f"{what}: a run", ours, "rows/s"), Row(GROUP, f"{what}: a DataLoader", theirs, "rows/s"), row]


def _run(module: nn.Module, inputs: Inputs, targets: Targets, plan: Training) -> float:
    """Run one training run and return its seconds."""
    began = time.perf_counter()
    train(module, inputs, targets, plan, FLAT.task, fresh=None, seed=0, report=lambda step, steps, loss: None)
    return time.perf_counter() - began


def _plain(module: nn.Module, inputs: Inputs, targets: Targets, plan: Training) -> float:
    """Run the plain loop and return its seconds."""
    began = time.perf_counter()
    rows = _Rows(inputs, targets)
    module.train()
    prepare = getattr(module, "prepare", None)
    if prepare is not None:
        prepare(*rows.columns)
    objective = Objective(module, FLAT.task, rows.columns[2])
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
    for batch in DataLoader(rows, batch_size=plan.batch_size, shuffle=True):
        loss = objective(*batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimizer.step()
    return time.perf_counter() - began


class _Rows(Dataset[tuple[Tensor, ...]]):
    def __init__(self, inputs: Inputs, targets: Targets) -> None:
        self.columns = [torch.from_numpy(array) for array in (inputs.numbers, inputs.categories, targets)]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self.columns)
