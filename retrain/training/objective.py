"""What a step makes smaller: the loss of a module's raw output, by the kind of task. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, cast

import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.multilabel import unpacked_tensor

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The loss of each row [b], of logits [b, outputs] and targets [b]."""

_logger = structlog.get_logger("tailrace.training")


class Objective(nn.Module):
    """A module with its loss behind it: all of a step that can be compiled, or shared out to several processes.

    `prior` [outputs] is added to the logits in training alone: see `tailrace.retrain.selection.weights`.
    """

    prior: Tensor | None

    def __init__(self, module: nn.Module, task: Task, targets: Tensor, prior: Sequence[float] | None = None) -> None:
        super().__init__()
        self.module, self.loss_of = module, loss_of(task, targets)
        added = None if prior is None else torch.tensor(prior, dtype=torch.float32, device=targets.device)
        self.register_buffer("prior", added, persistent=False)

    def forward(self, numbers: Tensor, categories: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss, each row's times its weight; of a committee, the mean of its members' own. On CUDA the module
        computes in bfloat16."""
        members = getattr(self.module, "members", self.module)
        if numbers.is_cuda:
            with torch.autocast("cuda", torch.bfloat16):
                logits = members(numbers, categories).float()
        else:
            logits = members(numbers, categories).float()
        if logits.dim() == 3:
            many = logits.shape[1]
            logits, targets = logits.flatten(0, 1), targets.repeat_interleave(many, 0)
            weights = None if weights is None else weights.repeat_interleave(many, 0)
        each = self.loss_of(logits if self.prior is None else logits + self.prior, targets)
        return each.mean() if weights is None else (each * weights).mean()


def loss_of(task: Task, targets: Tensor) -> Loss:
    """The loss for a task; squared errors are in units of the variance of `targets`, the window's."""
    logistic = functional.binary_cross_entropy_with_logits
    if task.kind is Kind.BINARY:
        return lambda logits, target: logistic(logits[:, 0], target, reduction="none")
    if task.kind is Kind.MULTILABEL:
        flags = partial(unpacked_tensor, labels=task.outputs)
        return lambda logits, target: logistic(logits, flags(target), reduction="none").mean(1)
    if task.kind is Kind.MULTICLASS:
        return lambda logits, target: functional.cross_entropy(logits, target.long(), reduction="none")
    variance = float(targets.var(unbiased=False)) or 1.0
    return lambda logits, target: functional.mse_loss(logits[:, 0], target, reduction="none") / variance


def compiled(objective: nn.Module, rows: Sequence[Tensor]) -> nn.Module | None:
    """The objective after torch.compile, tried on a few rows and else unchanged; None, and why in the log, where it
    fails. Compilers fail in many ways, none of which may cost a run that would do without."""
    before = [tensor.clone() for tensor in objective.state_dict().values()]
    try:
        made = cast("nn.Module", torch.compile(objective))
        torch.autograd.backward(made(*rows))
    except Exception as error:
        _logger.warning("training without torch.compile", detail=f"{type(error).__name__}: {str(error)[:500]}")
        return None
    finally:
        objective.zero_grad(set_to_none=True)
        with torch.no_grad():
            for tensor, old in zip(objective.state_dict().values(), before, strict=True):
                tensor.copy_(old)
    return made
