"""Building models and reading what they say. Importing this loads no torch; building does.

A *factory* is any callable that gives an nn.Module, without arguments or from (features, task); one that can be called
without arguments is. The module's `forward(numbers: Tensor [n, F], categories: Tensor [n, C])` gives raw logits (or
values) as a Tensor [n, task.outputs]; `numbers` holds NaN where a value is missing. A module may have
`prepare(numbers, categories, targets)`: the trainer calls it before each training with the rows it will train on; it
must not change what trained weights rely on. A committee may have `members(numbers, categories)` -> [n, members,
outputs]: each member is then trained on its own loss, so that they err differently.

Learning online (`retrain.online`), any module takes a step on the newest rows and some on replayed ones. It may have

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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from inference.features import Features
from inference.task import Kind, Task
from streams.events import DeclarationError

if TYPE_CHECKING:
    from torch import Tensor, nn

ModelFactory: TypeAlias = "Callable[[Features, Task], nn.Module] | Callable[[], nn.Module]"


def default_model(features: Features, task: Task) -> nn.Module:
    """The default tabular network, good untuned: see `inference.network.TabularNetwork`."""
    from inference.network import TabularNetwork

    return TabularNetwork(len(features.numbers), features.optional, features.buckets, task)


def build(factory: ModelFactory | None, features: Features, task: Task, seed: int = 0) -> nn.Module:
    """A fresh module, the same for the same seed; the process's random state stays as it was."""
    import torch

    make = cast("Callable[..., nn.Module]", factory or default_model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make() if _takes_nothing(make) else make(features, task)


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


def base_rate_scores(task: Task, base_rate: float | Sequence[float] | None) -> list[float]:
    """What release 0 predicts: the declared base rate, else even odds (0.0 for regression). Raises DeclarationError."""
    if base_rate is None:
        if task.kind is Kind.REGRESSION:
            return [0.0]
        return [1.0 / task.outputs if task.kind is Kind.MULTICLASS else 0.5] * task.outputs
    rates = [float(base_rate)] if isinstance(base_rate, int | float) else [float(rate) for rate in base_rate]
    if len(rates) != task.outputs:
        raise DeclarationError(f"base_rate has {len(rates)} values: a {task.kind} label needs {task.outputs}")
    if task.kind is not Kind.REGRESSION and not all(0.0 <= rate <= 1.0 for rate in rates):
        raise DeclarationError(f"base_rate {rates} must lie between 0 and 1")
    return rates


def _takes_nothing(make: Callable[..., Any]) -> bool:
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    return True
