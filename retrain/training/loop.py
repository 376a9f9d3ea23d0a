"""The training loop: one module, one window, one plan. Importing this imports torch.

The whole window lies on the device; a step gets its rows by index, so no row is touched in Python. On the CPU the same
rows, plan and seed give the same bytes (one thread). On CUDA: bfloat16 autocast and fused AdamW.
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
from tailrace.inference.serving.loader import scorer
from tailrace.retrain.training.averaging import Average, Best, tuned
from tailrace.retrain.training.batches import cold, picked, warm
from tailrace.retrain.training.distributed import ALONE, Group
from tailrace.retrain.training.objective import Objective, compiled
from tailrace.retrain.training.optimizer import AdamW
from tailrace.retrain.training.schedules import share

_REPORT_EVERY = 25
_EVALUATIONS = 20  # a run
_SCORE_ROWS = 8_192


class Diverged(TailraceError):
    """The loss or a weight is no longer a finite number; the message names the step."""


class TrainResult(NamedTuple):
    """`losses`: (step, mean loss of the steps before it). `evaluations`: (step, loss on the newest rows), on rank 0 of
    a run with patience. `seconds`: wall time of the loop."""

    steps: int
    losses: list[tuple[int, float]]
    evaluations: list[tuple[int, float]]
    seconds: float
    device: str


Report = Callable[[int, int, float], None]
"""Called with (step, steps, mean loss since the last call)."""


def best_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def warm_up() -> None:
    """Take the first step, which is slow (torch imports and starts on demand), before it is waited for."""
    inputs = Inputs(np.zeros((2, 1), np.float32), np.zeros((2, 0), np.int64))
    targets, plan, task = np.zeros(2, np.float32), Training(epochs=1), Task(Kind.BINARY)
    train(_First(), inputs, targets, plan, task, fresh=None, seed=0, report=lambda step, steps, loss: None)


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
    """Train `module` in place on inputs [n, ...] and targets [n], ordered oldest first.

    `fresh`: the newest rows that a warm module has not seen; None trains a cold one on all. `weights` [n]: how much
    each row's loss counts, and `prior` [outputs] what is added to the logits meanwhile (see `selection.weights`);
    evaluations go without either. Each rank of a `group` calls this alike and takes its share of every step. Raises
    Diverged; DeclarationError where the plan does not fit the module.
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
    """What the module says, as served: [n, outputs] probabilities (regression: the value). On the CPU."""
    served = scorer(module, task)
    starts = range(0, max(inputs.rows, 1), _SCORE_ROWS)
    return np.concatenate([served(inputs.take(slice(start, start + _SCORE_ROWS))) for start in starts])


class _First(nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(numbers)


class _Run:
    """One run, set up. `rows`: the columns [n, ...] of the window (numbers, categories, targets and, where there are
    any, weights), on the device of `module`."""

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
        self._tuned = tuned(module, plan.frozen)
        prepare = getattr(module, "prepare", None)
        if prepare is not None:
            prepare(*self._rows[:3])
        self._objective = Objective(module, task, self._rows[2], prior)
        self._average = Average(self._tuned, plan.ema)
        self._best = Best(module, plan.patience) if held else None

    @property
    def evaluations(self) -> list[tuple[int, float]]:
        """(step, loss on the newest rows)."""
        return self._best.points if self._best else []

    def train(self, report: Report) -> _Curve:
        """Take the steps, and leave the module with the weights to be released."""
        plan, group = self._plan, self._group
        curve = _Curve(self._steps, report, group)
        step_of = self._ready()
        optimizer = AdamW(self._tuned, plan.weight_decay)
        every = max(math.ceil(self._steps / _EVALUATIONS), 1)
        self._evaluate(0)
        for rows, weight in zip(picked(self._rows, self._batches), self._weights, strict=True):
            rate = plan.learning_rate * share(self._schedule, curve.step, self._steps, plan.warm_up)
            loss = step_of(*rows)
            loss = loss * weight if group.ranks > 1 else loss
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self._tuned, plan.clip)
            optimizer.step(rate)
            self._average.update()
            curve.add(loss.detach())
            if (curve.step % every == 0 or curve.step == self._steps) and self._evaluate(curve.step):
                break
        curve.look()
        if self._best:
            self._best.restore()
        else:
            self._average.swap()
        return curve

    def _ready(self) -> nn.Module:
        """The objective, compiled if wished and possible (on all ranks or none), its gradients those of all ranks."""
        if self._plan.compile and self._steps:
            made = compiled(self._objective, next(picked(self._rows, self._batches[:1])))
            if self._group.all(made is not None) and made is not None:
                return self._group.spread(made)
        return self._group.spread(self._objective)

    def _evaluate(self, step: int) -> bool:
        """Note the loss on the held rows, where there are any; whether that is enough. Rank 0 decides for all."""
        if self._best is None:
            return False
        enough = False
        if self._group.rank == 0:
            self._average.swap()
            enough = self._best.take(step, self._loss_on_held())
            self._average.swap()
        return self._group.agree(enough)

    @torch.no_grad()
    def _loss_on_held(self) -> float:
        """Of the module as it is served."""
        self._module.eval()
        total = torch.zeros((), device=self._held[0].device)
        parts = [torch.split(column, _SCORE_ROWS) for column in self._held[:3]]
        for numbers, categories, targets in zip(*parts, strict=True):
            total += self._objective.loss_of(self._module(numbers, categories).float(), targets).sum()
        self._module.train()
        return float(total) / len(self._held[0])


class _Curve:
    """Collects losses and looks at them now and then: reading a number back from a GPU makes it wait."""

    def __init__(self, steps: int, report: Report, group: Group) -> None:
        self.step = 0
        self.points: list[tuple[int, float]] = []
        self._steps, self._report, self._group = steps, report, group
        self._pending: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """The loss of the next step. Raises Diverged."""
        self.step += 1
        self._pending.append(loss)
        if len(self._pending) >= _REPORT_EVERY:
            self.look()

    def look(self) -> None:
        """Report what has come since the last look, if anything has. Raises Diverged."""
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
    """What draws random numbers (dropout) repeats; the process's own random state stays as it was."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
