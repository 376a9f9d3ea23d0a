"""Learning online: a module that learns chunk by chunk, from the newest labels and from replayed ones.

An update takes one step on the chunk and a few on batches of remembered rows, drawn with a probability that halves with
every half-life of age; then it goes part of the way back. Replay against forgetting: Rolnick et al., "Experience replay
for continual learning", 2019; part of the way back against noise: Zhang et al., "Lookahead optimizer: k steps forward,
1 step back", 2019. Everything is done on the CPU: the steps are too small for anything else to be faster.
What a module may offer to learn better: see `tailrace.inference.models.spec`. Importing this imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
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
from tailrace.inference.models.multilabel import unpacked_tensor
from tailrace.inference.models.spec import activate, predicted
from tailrace.inference.models.tabular.linear import wanted
from tailrace.retrain.online.replay import Memory
from tailrace.retrain.training.loop import Diverged
from tailrace.retrain.training.optimizer import AdamW

PARTS = 20  # of a chunk at most, each of which is learned in turn: when labels come faster, parts are larger
TRACKED = 1_000  # rows by which a module's encoding is moved
TRACK_EVERY = 10  # updates
TRACK_FIRST = 20  # updates, of each of which the encoding learns
FEW = 200  # rows known, up to which more batches are replayed
MORE = 4  # times as many more, at most
CHUNK = 50  # rows for which so many more are replayed; for fewer, fewer


class Before(NamedTuple):
    """What the module said of an update's rows before it learned them: scores [n, outputs], and their mean loss."""

    scores: NDArray[np.float32]
    loss: float


class Learner:
    """A module that learns chunk by chunk.

    The same module state, remembered rows, chunks and seed give the same bytes (on one thread). Between calls the
    module is in eval mode and may serve. The optimiser's state is not kept anywhere: a new learner on the same module
    goes on, its steps rising to their full length anew.
    """

    def __init__(self, module: nn.Module, task: Task, plan: Online, seed: int) -> None:
        self.module = module.eval()
        self._task, self._plan, self._seed = task, plan, seed
        self._random = torch.Generator().manual_seed(seed)
        self._memory = Memory(plan.window)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._optimizer = AdamW(parameters, plan.weight_decay)
        self._prepare = getattr(module, "prepare", None)
        self._absorb = getattr(module, "absorb", None)
        self._track = getattr(module, "track", None)
        self._descend: Callable[..., None] | None = getattr(module, "descend", None)
        many = self._descend is not None
        self._encode: Callable[..., tuple[Tensor, ...]] | None = getattr(module, "encode", None) if many else None
        half_lives = module.half_lives if many else (plan.half_life,)
        self._half_lives = torch.tensor(half_lives, dtype=torch.float64)[:, None]
        self._rate = plan.learning_rate * getattr(module, "pace", 1.0)
        self._updates = self._steps = 0

    def remember(self, inputs: Inputs, targets: NDArray[np.float32]) -> None:
        """Take rows, oldest first, into the memory without learning from them."""
        self._memory.add(*_tensors(inputs, targets))

    def learn(self, inputs: Inputs, targets: NDArray[np.float32]) -> Before:
        """One update on the newest labels: rows [n, ...] and targets [n], n >= 1, oldest first.

        Many rows take a limited number of larger steps. Raises Diverged when the loss or a weight is not finite; the
        module is then of no further use.
        """
        numbers, categories, target = _tensors(inputs, targets)
        self._memory.add(numbers, categories, target)
        if not self._updates and self._prepare is not None:
            self._prepare(*self._memory.rows())
        scale = self._scale()
        with torch.no_grad():
            logits = (self._absorb or self._logits)(numbers, categories, target)
            before = Before(activate(self._task, logits).float().numpy(), float(self._loss(logits, target, scale)))
        if self._track is not None and (self._updates < TRACK_FIRST or self._updates % TRACK_EVERY == 0):
            self._track(self._memory.take(self._memory.any(TRACKED, self._random))[0])
        self._take_steps(len(target), scale)
        self._updates += 1
        if not math.isfinite(before.loss) or not _finite(self.module):
            raise Diverged(f"a weight is not finite after {self._updates} updates: lower Online(learning_rate)")
        return before

    def _logits(self, numbers: Tensor, categories: Tensor, target: Tensor) -> Tensor:
        """What a module that does not absorb says of these rows."""
        logits: Tensor = self.module(numbers, categories)
        return logits

    def _take_steps(self, fresh: int, scale: float) -> None:
        if self._descend is None:
            self.module.train()
        size = max(self._plan.labels, -(-fresh // PARTS))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seed + self._updates)  # for dropout
            for ages in torch.split(torch.arange(fresh - 1, -1, -1), size):
                with self._optimizer.ahead(self._plan.lookahead):
                    for rows in self._batches(ages):
                        self._step(rows, scale)
        if self._descend is None:
            self.module.eval()

    def _batches(self, ages: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """What each step takes of its rows, for fresh rows of these ages [n]."""
        plan, company = self._plan, int(len(ages) == 1)  # some layers cannot train on one row alone (BatchNorm)
        # At the beginning there is all to learn.
        more = min(FEW // self._memory.written, MORE) * min(len(ages) / CHUNK, 1.0)
        replayed = round(plan.replay * (1 + more))
        drawn = self._memory.drawn(company + replayed * plan.batch_size, self._half_lives, self._random)
        rows = self._rows(torch.cat((ages.expand(len(drawn), -1), drawn), 1))
        sizes = [len(ages) + company, *repeat(plan.batch_size, replayed)]
        return zip(*(torch.split(column, sizes, 1) for column in rows), strict=True)

    @torch.no_grad()
    def _rows(self, ages: Tensor) -> tuple[Tensor, ...]:
        """The rows of these ages [sets of rows, b], and last what they should have been predicted as."""
        numbers, categories, target = self._memory.take(ages)
        if self._encode is None:
            return numbers, categories, target
        return *self._encode(numbers, categories), wanted(self._task.kind, target, self._task.outputs).float()

    def _step(self, rows: tuple[Tensor, ...], scale: float) -> None:
        *seen, due = rows
        if self._descend is not None:
            self._descend(*seen, partial(self._slope, due, scale))
        else:
            torch.autograd.backward(self._loss(self.module(*(column[0] for column in seen)), due[0], scale))
        self._steps += 1
        self._optimizer.step(self._rate * min(1.0, self._steps / max(self._plan.warm_up, 1)))

    def _scale(self) -> float:
        """The unit of a regression's errors: the standard deviation of the remembered targets."""
        return self._memory.deviation() if self._task.kind is Kind.REGRESSION else 1.0

    def _loss(self, logits: Tensor, target: Tensor, scale: float) -> Tensor:
        """The mean loss of logits [b, outputs]; of a regression Huber's, so that outliers pull with limited force."""
        logits = logits.reshape(len(target), self._task.outputs)
        if self._task.kind is Kind.BINARY:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], target)
        if self._task.kind is Kind.MULTILABEL:
            return functional.binary_cross_entropy_with_logits(logits, unpacked_tensor(target, self._task.outputs))
        if self._task.kind is Kind.MULTICLASS:
            return functional.cross_entropy(logits, target.long())
        return functional.huber_loss(logits[:, 0] / scale, target / scale)

    def _slope(self, due: Tensor, scale: float, logits: Tensor) -> Tensor:
        """The gradient of each set's mean loss by its logits [sets, b, outputs]: whatever the task, what they predict
        less what was due."""
        kind = self._task.kind
        error = predicted(kind, logits) - due
        if kind is Kind.REGRESSION:
            error = (error / scale).clamp_(-1.0, 1.0).div_(scale)
        return error.div_(due.shape[1] * (self._task.outputs if kind is Kind.MULTILABEL else 1))


def _tensors(inputs: Inputs, targets: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(inputs.numbers), torch.from_numpy(inputs.categories), torch.from_numpy(targets)


def _finite(module: nn.Module) -> bool:
    """Whether all of the state is; a sum with inf or NaN in it is inf or NaN, and faster than looking at each."""
    return all(math.isfinite(tensor.sum()) for tensor in module.state_dict().values())
