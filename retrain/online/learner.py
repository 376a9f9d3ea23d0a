"""Online learning: a module learns chunk by chunk, from the newest labels and from a replay buffer.

An update takes one step on the chunk and some on replayed rows, drawn with a probability that halves with every
half-life of age; then it interpolates between the old and the new weights. Replay against forgetting: Rolnick et al.,
"Experience replay for continual learning", 2019. Interpolation against noise: Zhang et al., "Lookahead optimizer: k
steps forward, 1 step back", 2019. Everything runs on the CPU: the steps are too small to gain from a GPU.
Hooks of a module: `tailrace.inference.models.hooks`. Importing this imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.online import Online
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.hooks import ManualGradientModule, OnlineModule
from tailrace.inference.models.outputs import activate, predicted
from tailrace.inference.models.tabular.linear import output_targets
from tailrace.inference.models.targets import Targets
from tailrace.retrain.online.replay import ReplayBuffer
from tailrace.retrain.training.loop import Diverged
from tailrace.retrain.training.optimizer import AdamW
from tailrace.retrain.training.single_row import trains_on_one_row

PARTS = 20  # of a chunk at most, each learned in turn: when labels come faster, parts are larger
TRACKED = 1_000  # replayed rows given to `OnlineModule.track`
TRACK_EVERY = 10  # updates
TRACK_FIRST = 20  # updates, in each of which `track` is called
FEW = 200  # rows learned, up to which more batches are replayed
MORE = 4  # factor of further replay at most
CHUNK = 50  # fresh rows for which that factor holds; in proportion for fewer


class PrequentialResult(NamedTuple):
    """Scores [n, outputs] of an update's rows before they were learned, and their mean training loss."""

    scores: NDArray[np.float32]
    loss: float


class Learner:
    """A module that learns online, chunk by chunk.

    Equal module state, replay buffer, chunks and seed give equal bytes (on one thread). Between calls the module is in
    eval mode and may serve. The optimizer's state is not saved: a new learner on the same module continues with steps
    that rise to their full length again.
    """

    def __init__(self, module: nn.Module, task: Task, plan: Online, seed: int) -> None:
        self.module = module.eval()
        self._task, self._plan, self._seed = task, plan, seed
        self._random = torch.Generator().manual_seed(seed)
        self._replay = ReplayBuffer(plan.window)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._optimizer = AdamW(parameters, plan.weight_decay)
        self._hooks = module if isinstance(module, OnlineModule) else None
        self._manual = module if isinstance(module, ManualGradientModule) else None
        half_lives = (plan.half_life,) if self._manual is None else tuple(self._manual.half_lives)
        self._half_lives = torch.tensor(half_lives, dtype=torch.float64)[:, None]
        self._rate = plan.learning_rate * (1.0 if self._hooks is None else self._hooks.pace)
        self._updates = self._steps = 0

    def remember(self, inputs: Inputs, targets: Targets) -> None:
        """Add rows [n, ...], oldest first, to the replay buffer without learning from them."""
        self._replay.add(*_tensors(inputs, targets))

    def learn(self, inputs: Inputs, targets: Targets) -> PrequentialResult:
        """Take one update on the newest labels: rows [n, ...] and targets [n], or [n, labels], n >= 1, oldest first.

        Returns the scores and the mean loss of the rows from before the update; the rows enter the replay buffer. The
        number of steps is limited; with many rows the steps take more rows each. Raises Diverged if the loss or a
        weight is not finite; the module must not be used afterwards.
        """
        numbers, categories, target = _tensors(inputs, targets)
        self._replay.add(numbers, categories, target)
        if not self._updates and self._hooks is not None:
            self._hooks.prepare(*self._replay.rows())
        scale = self._replay.target_deviation() if self._task.kind is Kind.REGRESSION else 1.0
        with torch.no_grad():
            logits = self._logits_before(numbers, categories, target)
            loss = float(self._loss(logits, target, scale))
            before = PrequentialResult(activate(self._task, logits).float().numpy(), loss)
        if self._hooks is not None and (self._updates < TRACK_FIRST or self._updates % TRACK_EVERY == 0):
            self._hooks.track(self._replay.take(self._replay.uniform_ages(TRACKED, self._random))[0])
        self._take_steps(len(target), scale)
        self._updates += 1
        if not math.isfinite(before.loss) or not _finite(self.module):
            raise Diverged(f"a weight is not finite after {self._updates} updates: lower Online(learning_rate)")
        return before

    def _logits_before(self, numbers: Tensor, categories: Tensor, target: Tensor) -> Tensor:
        if self._hooks is not None:
            return self._hooks.absorb(numbers, categories, target)
        logits: Tensor = self.module(numbers, categories)
        return logits

    def _take_steps(self, fresh: int, scale: float) -> None:
        if self._manual is None:
            self.module.train()
        size = max(self._plan.labels, -(-fresh // PARTS))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seed + self._updates)  # for dropout
            for ages in torch.split(torch.arange(fresh - 1, -1, -1), size):
                with self._optimizer.lookahead(self._plan.lookahead):
                    for rows in self._batches(ages):
                        self._step(rows, scale)
        if self._manual is None:
            self.module.eval()

    def _batches(self, ages: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Rows of each step, for fresh rows of these ages [n]: the fresh ones, then replayed batches.

        A single fresh row is accompanied by a replayed one, because some layers cannot train on one row alone.
        """
        company = int(len(ages) == 1)
        more = min(FEW // self._replay.written, MORE) * min(len(ages) / CHUNK, 1.0)
        replayed = round(self._plan.replay * (1 + more))
        drawn = self._replay.decayed_ages(company + replayed * self._batch_size, self._half_lives, self._random)
        rows = self._rows(torch.cat((ages.expand(len(drawn), -1), drawn), 1))
        sizes = [len(ages) + company, *repeat(self._batch_size, replayed)]
        return zip(*(torch.split(column, sizes, 1) for column in rows), strict=True)

    @cached_property
    def _batch_size(self) -> int:
        """Rows of a replayed batch: as declared, but at least 2 for a module that cannot train on one row."""
        if self._plan.batch_size > 1 or self._manual is not None:
            return self._plan.batch_size
        numbers, categories, _ = self._replay.take(torch.zeros(1, dtype=torch.int64))
        return 1 if trains_on_one_row(self.module, numbers, categories) else 2

    @torch.no_grad()
    def _rows(self, ages: Tensor) -> tuple[Tensor, ...]:
        """Rows of these ages [sets, b]: columns [sets, b, ...], the last of which is the targets."""
        numbers, categories, target = self._replay.take(ages)
        if self._manual is None:
            return numbers, categories, target
        expected = output_targets(self._task.kind, target, self._task.outputs).float()
        return *self._manual.encode(numbers, categories), expected

    def _step(self, rows: tuple[Tensor, ...], scale: float) -> None:
        *columns, targets = rows
        if self._manual is not None:
            self._manual.descend(columns, partial(self._loss_gradient, targets, scale))
        else:
            torch.autograd.backward(self._loss(self.module(*(column[0] for column in columns)), targets[0], scale))
        self._steps += 1
        self._optimizer.step(self._rate * min(1.0, self._steps / max(self._plan.warm_up, 1)))

    def _loss(self, logits: Tensor, target: Tensor, scale: float) -> Tensor:
        """Mean loss of logits [b, outputs]; for regression the Huber loss in units of `scale`, which bounds the effect
        of outliers."""
        logits = logits.reshape(len(target), self._task.outputs)
        if self._task.kind is Kind.BINARY:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], target)
        if self._task.kind is Kind.MULTILABEL:
            return functional.binary_cross_entropy_with_logits(logits, target)
        if self._task.kind is Kind.MULTICLASS:
            return functional.cross_entropy(logits, target.long())
        return functional.huber_loss(logits[:, 0] / scale, target / scale)

    def _loss_gradient(self, targets: Tensor, scale: float, logits: Tensor) -> Tensor:
        """Gradient of each set's mean loss with respect to its logits [sets, b, outputs]: prediction minus target."""
        kind = self._task.kind
        error = predicted(kind, logits) - targets
        if kind is Kind.REGRESSION:
            error = (error / scale).clamp_(-1.0, 1.0).div_(scale)
        return error.div_(targets.shape[1] * (self._task.outputs if kind is Kind.MULTILABEL else 1))


def _tensors(inputs: Inputs, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(inputs.numbers), torch.from_numpy(inputs.categories), torch.from_numpy(targets)


def _finite(module: nn.Module) -> bool:
    """True if all of the state is finite: a sum with inf or NaN is not, and is faster than testing each number."""
    return all(math.isfinite(tensor.sum()) for tensor in module.state_dict().values())
