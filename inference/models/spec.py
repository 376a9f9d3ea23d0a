"""Building models and reading what they say. Importing this loads no torch; building does.

A *factory* is any callable that gives an nn.Module, without arguments or from (features, task); one that can be called
without arguments is. The module's `forward(numbers: Tensor [n, F], categories: Tensor [n, C])` gives raw logits (or
values) as a Tensor [n, task.outputs]; `numbers` holds NaN where a value is missing. A module may have
`prepare(numbers, categories, targets)`: the trainer calls it before each training with the rows it will train on; it
must not change what trained weights rely on. A committee may have `members(numbers, categories)` -> [n, members,
outputs]: each member is then trained on its own loss, so that they err differently.

Learning online (`online.learner`), any module takes a step on the newest rows and some on replayed ones. It may have

- `absorb(numbers, categories, targets)`: called with the newest rows, oldest first, before the steps: learns from them
  what is not learned by gradient, such as running moments, and returns the logits [n, outputs] of before;
- `track(numbers)`: called now and then with remembered rows, so that encodings follow what the columns hold;
- `half_lives`, `encode` and `descend`: what is learned by gradient, each of m networks from rows of its own, replayed
  with its own half-life of age, in examples. `encode(numbers [m, b, F], categories [m, b, C])` gives the tensors
  [m, b, ...] that `descend` takes, so that several steps' rows go at once; `descend(*tensors, slope)` gives the
  parameters their gradients, where `slope` tells the gradient of the loss by what the networks say [m, b, outputs];
- `pace`: how many times the declared learning rate suits it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.declaration.pipeline import ModelFactory, Pipeline
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Features

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModelSpec(NamedTuple):
    """Everything that makes a module of a pipeline: its features, its task, and the factory (None: the default)."""

    features: Features
    task: Task
    factory: ModelFactory | None = None

    @staticmethod
    @lru_cache(maxsize=64)
    def of(pipeline: Pipeline) -> ModelSpec:
        """The spec that a pipeline declares; the same object each time."""
        return ModelSpec(Features.of(pipeline.schema.event), pipeline.task, pipeline.model)

    def build(self, seed: int = 0) -> nn.Module:
        """A fresh module, the same for the same seed; the process's random state stays unchanged."""
        import torch

        make: Callable[..., nn.Module] = self.factory or default_model
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return make() if _takes_nothing(make) else make(self.features, self.task)


def default_model(features: Features, task: Task) -> nn.Module:
    """The default tabular network, good untuned: see `tailrace.inference.models.tabular.network.TabularNetwork`."""
    from tailrace.inference.models.tabular.network import TabularNetwork

    return TabularNetwork(len(features.numbers), features.optional, features.buckets, task)


def activate(task: Task, logits: Tensor) -> Tensor:
    """Scores [n, outputs] of a module's raw output: probabilities, or values. Raises ValueError for a wrong shape."""
    rows = len(logits)
    if logits.numel() != rows * task.outputs:
        raise ValueError(f"the model gave {tuple(logits.shape)} for {rows} rows: ({rows}, {task.outputs}) is due")
    return predicted(task.kind, logits.reshape(rows, task.outputs))


def predicted(kind: Kind, logits: Tensor) -> Tensor:
    """Probabilities, or values, of logits [..., outputs]."""
    if kind in (Kind.BINARY, Kind.MULTILABEL):
        return logits.sigmoid()
    return logits.softmax(-1) if kind is Kind.MULTICLASS else logits


def _takes_nothing(make: Callable[..., Any]) -> bool:
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    return True
