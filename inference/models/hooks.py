"""Hooks of modules that take part in training beyond gradient steps. Importing this imports torch.

A factory may return any `nn.Module`. Training uses hooks only of an `OnlineModule`: other modules may use the names
below for their own purposes. Every hook has a default, so a subclass overrides those that it needs:

    hook         called by                    purpose
    prepare      runs and online learning     set statistics of the training rows before the first step
    members      runs                         outputs of each member of an ensemble, each trained on its own loss
    absorb       online learning              learn from the newest rows what gradient steps do not learn
    track        online learning              move encodings of columns towards replayed rows
    pace         online learning              factor on the declared learning rate

A `ManualGradientModule` also computes the gradients of its online steps itself, with replay of its own for each of its
networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor, nn

LossGradient: TypeAlias = Callable[[Tensor], Tensor]
"""Outputs [networks, b, outputs] -> the gradient of the mean loss with respect to them, of the same shape."""


class OnlineModule(nn.Module):
    """Base class of a module with training hooks.

    Shapes: `numbers` [n, F] float32 (NaN: missing), `categories` [n, C] int64, `targets` [n] float32, or [n, labels]
    for a multi-label task. Whatever a hook learns must be in the state dict, or it is lost with the process.
    """

    pace: float = 1.0
    """Factor on `Online(learning_rate)`."""

    def prepare(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> None:
        """Set statistics of the rows that training is about to use; do nothing by default.

        Called once before the steps of a whole run, in train mode, and before the first update of an online learner, in
        eval mode. The module may have trained weights already: their meaning must not change.
        """

    def members(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Raw outputs of each member of an ensemble, shape [n, members, outputs]; by default those of the module,
        shape [n, outputs].

        A whole run minimises the mean of the members' losses, so that members err differently.
        """
        outputs: Tensor = self(numbers, categories)
        return outputs

    def absorb(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> Tensor:
        """Learn from the newest rows, oldest first, what gradient steps do not learn, such as running moments; by
        default nothing.

        Returns the logits, shape [n, outputs], from before. Called in eval mode before the steps of each update.
        """
        logits: Tensor = self(numbers, categories)
        return logits

    def track(self, numbers: Tensor) -> None:
        """Move encodings of columns towards `numbers` [n, F], a sample of the replay buffer; do nothing by default.

        Called in eval mode in some of the updates.
        """


class ManualGradientModule(OnlineModule):
    """Base class of an online module of m networks that computes the gradients of online steps itself.

    An online step then gives each network rows of its own and does not call `forward` in train mode. Whole runs still
    use autograd.
    """

    half_lives: Sequence[float]
    """Replay half-life of each network, in examples of age; infinite: all ages are equally likely."""

    def encode(self, numbers: Tensor, categories: Tensor) -> tuple[Tensor, ...]:
        """Encode rows for `descend`: numbers [m, b, F], categories [m, b, C] -> tensors [m, b, ...].

        The rows of several steps are encoded at once, without gradients.
        """
        raise NotImplementedError

    def descend(self, encoded: Sequence[Tensor], loss_gradient: LossGradient) -> None:
        """Set the gradient of each parameter for one step on the rows `encoded`, the tensors [m, b, ...] of `encode`.

        `loss_gradient` takes the outputs [m, b, outputs] of the networks.
        """
        raise NotImplementedError


def member_outputs(module: nn.Module, numbers: Tensor, categories: Tensor) -> Tensor:
    """Raw outputs to train on: [n, members, outputs] of an ensemble, else [n, outputs]."""
    outputs: Tensor = (module.members if isinstance(module, OnlineModule) else module)(numbers, categories)
    return outputs
