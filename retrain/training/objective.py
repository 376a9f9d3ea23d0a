"""Training objective: the loss of a module's raw output, by the kind of task. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.hooks import member_outputs

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits [b, outputs] and targets [b], or [b, labels], to the loss of each row [b]."""

_logger = structlog.get_logger("tailrace.training")


class Objective(nn.Module):
    """A module followed by its loss: the part of a step that can be compiled or distributed.

    `prior` [outputs] is added to the logits in training alone: see `tailrace.retrain.selection.weights`.
    """

    prior: Tensor | None

    def __init__(self, module: nn.Module, task: Task, targets: Tensor, prior: Sequence[float] | None = None) -> None:
        super().__init__()
        self.module, self.loss_of = module, loss_of(task, targets)
        added = None if prior is None else torch.tensor(prior, dtype=torch.float32, device=targets.device)
        self.register_buffer("prior", added, persistent=False)

    def forward(self, numbers: Tensor, categories: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean of the rows' losses times their weights [b]; for an ensemble also the mean over its members.

        On CUDA the module computes in bfloat16.
        """
        if numbers.is_cuda:
            with torch.autocast("cuda", torch.bfloat16):
                logits = member_outputs(self.module, numbers, categories).float()
        else:
            logits = member_outputs(self.module, numbers, categories).float()
        if logits.dim() == 3:
            members = logits.shape[1]
            logits, targets = logits.flatten(0, 1), targets.repeat_interleave(members, 0)
            weights = None if weights is None else weights.repeat_interleave(members, 0)
        each = self.loss_of(logits if self.prior is None else logits + self.prior, targets)
        return each.mean() if weights is None else (each * weights).mean()


def loss_of(task: Task, targets: Tensor) -> Loss:
    """Choose the loss for a task; squared errors are in units of the variance of `targets`, those of the window."""
    logistic = functional.binary_cross_entropy_with_logits
    if task.kind is Kind.BINARY:
        return lambda logits, target: logistic(logits[:, 0], target, reduction="none")
    if task.kind is Kind.MULTILABEL:
        return lambda logits, target: logistic(logits, target, reduction="none").mean(1)
    if task.kind is Kind.MULTICLASS:
        return lambda logits, target: functional.cross_entropy(logits, target.long(), reduction="none")
    variance = float(targets.var(unbiased=False)) or 1.0
    return lambda logits, target: functional.mse_loss(logits[:, 0], target, reduction="none") / variance


def compiled(objective: nn.Module, rows: Sequence[Tensor]) -> nn.Module | None:
    """Compile the objective and try it on a few rows, which leaves its state unchanged; None where that fails.

    The reason is logged. Compilers fail in many ways, none of which may end a run that works without one.
    """
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
