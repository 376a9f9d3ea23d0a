"""The training loop of a run: one module, one window of rows, one plan. Importing this imports torch.

The whole window is on the device, and a step picks its rows by index, so that no row is handled in Python. On the CPU
with one thread, equal rows, plan and seed give equal bytes. On CUDA: bfloat16 autocast and fused AdamW.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import LearningRateSchedule, Training
from tailrace.errors import TailraceError
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.hooks import OnlineModule
from tailrace.inference.serving.loader import scorer
from tailrace.retrain.training.averaging import Average
from tailrace.retrain.training.batches import cold, picked, warm
from tailrace.retrain.training.distributed import ALONE, Group
from tailrace.retrain.training.early_stopping import EarlyStopping
from tailrace.retrain.training.fine_tuning import freeze
from tailrace.retrain.training.objective import Objective, compiled
from tailrace.retrain.training.optimizer import AdamW
from tailrace.retrain.training.schedules import share
from tailrace.retrain.training.single_row import accompanied, trains_on_one_row

_REPORT_EVERY = 25
_EVALUATIONS = 20  # of the held rows, per run
_SCORE_ROWS = 8_192


class Diverged(TailraceError):
    """A loss or weight is not finite; the message names the step."""


class TrainResult(NamedTuple):
    """Result of a training run.

    `losses`: (step, mean loss of the steps since the previous entry). `evaluations`: (step, loss on the held rows), on
    rank 0 of a run with patience. `seconds`: wall time of the loop.
    """

    steps: int
    losses: list[tuple[int, float]]
    evaluations: list[tuple[int, float]]
    seconds: float
    device: str


Report = Callable[[int, int, float], None]
"""Called with (step, steps, mean loss since the last call)."""


def best_device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def warm_up() -> None:
    """Take a first step on a toy module, because it is slow: torch imports and starts parts of itself on demand."""
    inputs = Inputs(np.zeros((2, 1), np.float32), np.zeros((2, 0), np.int64))
    targets, plan, task = np.zeros(2, np.float32), Training(epochs=1), Task(Kind.BINARY)
    train(_ToyModule(), inputs, targets, plan, task, fresh=None, seed=0, report=lambda step, steps, loss: None)


def train(
    module: nn.Module,
    inputs: Inputs,
    targets: NDArray[np.float32],
    plan: Training,
    task: Task,
    *,
    fresh: int | None,
    seed: int,
    report: Report,
    group: Group = ALONE,
    weights: NDArray[np.float32] | None = None,
    prior: Sequence[float] | None = None,
) -> TrainResult:
    """Train `module` in place on inputs [n, ...] and targets [n], or [n, labels], ordered oldest first.

    `fresh`: number of newest rows that a warm module has not seen; None trains a cold module on all rows. `weights`
    [n]: factor on each row's loss; `prior` [outputs]: added to the logits (see `retrain.selection.weights`);
    evaluations use neither. Every rank of a `group` calls this with the same arguments and takes its share of each
    step. Raises Diverged, and DeclarationError where the plan does not fit the module.
    """
    began = time.perf_counter()
    device = best_device()
    with _seeded(seed + group.rank, device):
        arrays = (inputs.numbers, inputs.categories, targets, *(() if weights is None else (weights,)))
        rows = [torch.from_numpy(array).to(device) for array in arrays]
        run = _Run(module.to(device), rows, plan, task, fresh, seed, group, prior)
        curve = run.train(report)
    module.eval().to("cpu")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in module.state_dict().values()):
        raise Diverged(f"a weight is not finite after {curve.step} steps: lower Training(learning_rate)")
    return TrainResult(curve.step, curve.points, run.evaluations, time.perf_counter() - began, device.type)


def score(module: nn.Module, inputs: Inputs, task: Task) -> NDArray[np.float32]:
    """Score rows as a worker does, on the CPU: [n, outputs] probabilities, or values for regression."""
    served = scorer(module, task)
    starts = range(0, max(inputs.rows, 1), _SCORE_ROWS)
    return np.concatenate([served(inputs.take(slice(start, start + _SCORE_ROWS))) for start in starts])


class _ToyModule(nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(numbers)


class _Run:
    """One training run, ready to take its steps.

    `rows`: columns [n, ...] of the window, on the device of `module`: numbers, categories, targets and, if there are
    any, weights.
    """

    def __init__(
        self,
        module: nn.Module,
        rows: Sequence[Tensor],
        plan: Training,
        task: Task,
        fresh: int | None,
        seed: int,
        group: Group,
        prior: Sequence[float] | None,
    ) -> None:
        count = len(rows[2])
        held = plan.validated(count if fresh is None else fresh)
        self._module, self._plan, self._group = module.train(), plan, group
        self._rows = [column[: count - held] for column in rows]
        self._held = [column[count - held :] for column in rows]
        batches = cold(count - held, plan, seed) if fresh is None else warm(count - held, fresh - held, plan, seed)
        self._steps = len(batches)
        self._batches, self._weights = group.shares(batches)
        automatic: LearningRateSchedule = "cosine" if fresh is None else "constant"
        self._schedule: LearningRateSchedule = automatic if plan.schedule == "auto" else plan.schedule
        self._trainable = freeze(module, plan.frozen)
        if isinstance(module, OnlineModule):
            module.prepare(*self._rows[:3])
        if any(len(batch) == 1 for batch in self._batches):
            numbers, categories = (column[:1] for column in self._rows[:2])
            if not trains_on_one_row(module, numbers, categories):
                self._batches = accompanied(self._batches, count - held)
        self._objective = Objective(module, task, self._rows[2], prior)
        self._average = Average(self._trainable, plan.ema)
        self._early_stopping = EarlyStopping(module, plan.patience) if held else None

    @property
    def evaluations(self) -> list[tuple[int, float]]:
        """Loss on the held rows by step, on rank 0 of a run with patience; else empty."""
        return self._early_stopping.points if self._early_stopping else []

    def train(self, report: Report) -> _Curve:
        """Take the steps and return the curve of losses; the module is left with the weights to release."""
        plan, group = self._plan, self._group
        curve = _Curve(self._steps, report, group)
        step_of = self._ready()
        optimizer = AdamW(self._trainable, plan.weight_decay)
        every = max(math.ceil(self._steps / _EVALUATIONS), 1)
        self._evaluate(0)
        for rows, weight in zip(picked(self._rows, self._batches), self._weights, strict=True):
            rate = plan.learning_rate * share(self._schedule, curve.step, self._steps, plan.warm_up)
            loss = step_of(*rows)
            loss = loss * weight if group.ranks > 1 else loss
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self._trainable, plan.clip)
            optimizer.step(rate)
            self._average.update()
            curve.add(loss.detach())
            if (curve.step % every == 0 or curve.step == self._steps) and self._evaluate(curve.step):
                break
        curve.flush()
        if self._early_stopping:
            self._early_stopping.restore()
        else:
            self._average.swap()
        return curve

    def _ready(self) -> nn.Module:
        """Objective with gradients averaged over the ranks; compiled if declared and possible on every rank."""
        if self._plan.compile and self._steps:
            made = compiled(self._objective, next(picked(self._rows, self._batches[:1])))
            if self._group.all(made is not None) and made is not None:
                return self._group.spread(made)
        return self._group.spread(self._objective)

    def _evaluate(self, step: int) -> bool:
        """Evaluate the held rows, if there are any; True if the run should stop. Rank 0 decides for all ranks."""
        if self._early_stopping is None:
            return False
        stop = False
        if self._group.rank == 0:
            self._average.swap()
            stop = self._early_stopping.record(step, self._loss_on_held())
            self._average.swap()
        return self._group.agree(stop)

    @torch.no_grad()
    def _loss_on_held(self) -> float:
        """Mean loss of the held rows in eval mode, as the module is served."""
        self._module.eval()
        total = torch.zeros((), device=self._held[0].device)
        parts = [torch.split(column, _SCORE_ROWS) for column in self._held[:3]]
        for numbers, categories, targets in zip(*parts, strict=True):
            total += self._objective.loss_of(self._module(numbers, categories).float(), targets).sum()
        self._module.train()
        return float(total) / len(self._held[0])


class _Curve:
    """Loss curve of a run.

    Losses are read from the device once in _REPORT_EVERY steps, because reading makes a GPU wait.
    """

    def __init__(self, steps: int, report: Report, group: Group) -> None:
        self.step = 0
        self.points: list[tuple[int, float]] = []
        self._steps, self._report, self._group = steps, report, group
        self._pending: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Add the loss of the next step to the curve. Raises Diverged."""
        self.step += 1
        self._pending.append(loss)
        if len(self._pending) >= _REPORT_EVERY:
            self.flush()

    def flush(self) -> None:
        """Report the mean of the losses since the previous report, if there are any. Raises Diverged."""
        if not self._pending:
            return
        mean = self._group.mean(float(torch.stack(self._pending).mean()))
        self._pending.clear()
        if not math.isfinite(mean):
            raise Diverged(f"the loss is {mean} near step {self.step} of {self._steps}: lower Training(learning_rate)")
        self.points.append((self.step, mean))
        self._report(self.step, self._steps, mean)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed random numbers such as dropout inside; the process's own random state is restored."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
