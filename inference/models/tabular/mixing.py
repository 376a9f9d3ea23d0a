"""How much each member of the default committee counts. Importing this imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

TRUSTED = 700.0  # rows of age after which a row counts half for the members' weights
EAGER = 0.05  # how much a row's gradient of 1 counts
SHARED = 0.1  # of the weights, shared out evenly
TEMPER = 0.2  # of a member's weight is the base rate's at first, before a part is shared out
STEEPEST = 8.0  # gradient of a row: more says no more


class Mixer(nn.Module):
    """Weights of the members [members]: a part shared out evenly, the rest by what each adds. Once labels tell, what
    they lack to one is that of the base rate (of classes, as it was among the first labels), so that members who are
    too sure of themselves count for less.

    They follow the gradient of what the mixture loses: Kivinen and Warmuth, "Exponentiated gradient versus gradient
    descent for linear predictors", 1997. So a member counts for what the others lack, not for how good it is alone: the
    mean of what errs differently is hard to beat. Gradients fade, so that whoever was lost can come back; the part that
    is shared out goes to the members alone.
    """

    summed: Tensor
    weights: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        self.register_buffer("summed", torch.zeros(members))  # gradients, which fade with age
        self.register_buffer("weights", torch.full((members,), 1 / members))  # tempered once labels tell

    def absorb(self, pulls: Tensor) -> None:
        """The gradients of the newest rows' losses by the weights: [n, members]."""
        now = pulls.clamp(-STEEPEST, STEEPEST).sum(0)
        self.summed.mul_(0.5 ** (len(pulls) / TRUSTED)).add_(now)
        members = len(self.summed)
        said = functional.pad(-EAGER * self.summed, (0, 1), value=math.log(TEMPER))
        self.weights.copy_(said.softmax(0)[:members] * (1 - SHARED) + SHARED / members)
