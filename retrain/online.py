"""Learning online: a module that learns chunk by chunk, from the newest labels and from replayed ones.

An update takes one step on the chunk and a few on batches of remembered rows, drawn with a probability that halves with
every half-life of age. Replay against forgetting: Rolnick et al., "Experience replay for continual learning", 2019.
Everything is done on the CPU: the steps are too small for anything else to be faster.
What a module may offer to learn better: see `inference.model`. Importing this imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inference.features import Inputs
from inference.model import activate
from inference.multilabel import unpacked_tensor
from inference.task import Kind, Task
from retrain.adamw import AdamW
from retrain.batches import ages as drawn_ages
from retrain.rhythm import Online
from retrain.training import Diverged

PARTS = 20  # of a chunk at most, each of which is learned in turn: when labels come faster, parts are larger
TRACKED = 1_000  # rows by which a module's encoding is moved
TRACK_EVERY = 10  # updates
TRACK_FIRST = 20  # updates, of each of which the encoding learns


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
        self._memory = _Memory(plan.window)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._optimizer = AdamW(parameters, plan.weight_decay)
        self._prepare = getattr(module, "prepare", None)
        self._absorb = getattr(module, "absorb", None)
        self._track = getattr(module, "track", None)
        self._networks: Callable[[Tensor, Tensor], Tensor] | None = getattr(module, "networks", None)
        many = self._networks is not None
        self._encode = cast("Callable[[Tensor], Tensor]", module.encode) if many else _as_they_are
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
        if self._networks is None:
            self.module.train()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seed + self._updates)  # for dropout
            for rows in self._batches(fresh):
                self._step(rows, scale)
        if self._networks is None:
            self.module.eval()

    def _batches(self, fresh: int) -> Iterator[tuple[Tensor, ...]]:
        """The rows of each step: encoded numbers, categories and targets [sets of rows, b, ...]."""
        memory, plan = self._memory, self._plan
        size = max(plan.labels, -(-fresh // PARTS))
        for ages in torch.split(torch.arange(fresh - 1, -1, -1), size):
            # Some layers cannot train on one row alone (BatchNorm): it is given company.
            company = memory.drawn(int(len(ages) == 1), self._half_lives, self._random)
            yield self._rows(torch.cat((ages.expand(len(company), -1), company), 1))
            if plan.replay:
                replayed = self._rows(memory.drawn(plan.replay * plan.batch_size, self._half_lives, self._random))
                yield from zip(*(torch.split(column, plan.batch_size, 1) for column in replayed), strict=True)

    @torch.no_grad()
    def _rows(self, ages: Tensor) -> tuple[Tensor, ...]:
        numbers, *others = self._memory.take(ages)
        return self._encode(numbers), *others

    def _step(self, rows: tuple[Tensor, ...], scale: float) -> None:
        numbers, categories, target = rows
        if self._networks is not None:
            logits = self._networks(numbers, categories)
            # The sum over the networks of each one's mean loss: they share few weights, so each is trained as if alone.
            loss = self._loss(logits.flatten(0, 1), target.flatten(), scale) * len(target)
        else:
            loss = self._loss(self.module(numbers[0], categories[0]), target[0], scale)
        torch.autograd.backward(loss)
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


class _Memory:
    """The newest rows, in a ring that grows up to `window`."""

    def __init__(self, window: int) -> None:
        self._window, self._written = window, 0
        self._arrays: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return min(self._written, self._window)

    def add(self, *arrays: Tensor) -> None:
        """Rows, oldest first; those that are too many push the oldest out."""
        skipped = max(len(arrays[0]) - self._window, 0)
        arrays = tuple(array[skipped:] for array in arrays)
        self._grow(arrays)
        places = (torch.arange(len(arrays[0])) + self._written) % len(self._arrays[0])
        for own, new in zip(self._arrays, arrays, strict=True):
            own.index_copy_(0, places, new)
        self._written += len(places)

    def take(self, ages: Tensor) -> tuple[Tensor, ...]:
        """The rows of these ages: 0 is the newest."""
        places = (self._written - 1 - ages) % len(self._arrays[0])
        return tuple(array[places] for array in self._arrays)

    def rows(self) -> tuple[Tensor, ...]:
        """All, oldest first."""
        return self.take(torch.arange(len(self) - 1, -1, -1))

    def any(self, size: int, random: torch.Generator) -> Tensor:
        """Ages [size], each as likely; each row once where there are no more."""
        known = len(self)
        return torch.randint(known, (size,), generator=random) if known > size else torch.arange(known)

    def drawn(self, size: int, half_lives: Tensor, random: torch.Generator) -> Tensor:
        """Ages [sets, size] of what is known: see `retrain.batches.ages`."""
        return drawn_ages(size, len(self), half_lives, random)

    def deviation(self) -> float:
        """The standard deviation of the targets; 1 where they do not vary."""
        return float(self._arrays[-1][: len(self)].double().std(correction=0)) or 1.0

    def _grow(self, arrays: tuple[Tensor, ...]) -> None:
        """Make room for these rows: twice as much as there was, up to the window. Until it is full nothing wraps."""
        room, due = len(self._arrays[0]) if self._arrays else 0, min(self._written + len(arrays[0]), self._window)
        if due <= room:
            return
        larger = tuple(array.new_empty((min(max(due, 2 * room), self._window), *array.shape[1:])) for array in arrays)
        for new, old in zip(larger, self._arrays, strict=False):
            new[: self._written] = old[: self._written]
        self._arrays = larger


def _as_they_are(numbers: Tensor) -> Tensor:
    return numbers


def _tensors(inputs: Inputs, targets: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(inputs.numbers), torch.from_numpy(inputs.categories), torch.from_numpy(targets)


def _finite(module: nn.Module) -> bool:
    """Whether all of the state is; a sum with inf or NaN in it is inf or NaN, and faster than looking at each."""
    return all(math.isfinite(tensor.sum()) for tensor in module.state_dict().values())
