"""Weights of the members of the default ensemble. Importing this imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HALF_LIFE = 700.0  # rows of age after which a row's gradient counts half
RATE = 0.05  # step of exponentiated gradient: effect of a summed gradient of 1 on the log of a weight
SHARED = 0.1  # part of the total weight that is shared out evenly
TEMPER = 0.2  # initial weight of the base rate relative to one member, before the even part is shared out
STEEPEST = 8.0  # bound of one row's gradient


class Mixer(nn.Module):
    """Weights of the members, shape [members]: an even part, and a part that follows how much each member adds.

    Once labels have come, the weights sum to less than one. The rest is the weight of the base rate, so that members
    that are over-confident count for less.

    Exponentiated gradient on the loss of the mixture: Kivinen and Warmuth, "Exponentiated gradient versus gradient
    descent for linear predictors", 1997. A member is therefore weighted for its contribution to the mixture, not for
    its own loss: a mean of members with different errors is hard to beat. Gradients fade with age, so that a member
    that was down-weighted can recover.

    The names of the buffers are keys of published weights.
    """

    summed: Tensor
    weights: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        self.register_buffer("summed", torch.zeros(members))  # exponentially decayed sum of gradients
        self.register_buffer("weights", torch.full((members,), 1 / members))  # without a base rate until labels come

    def absorb(self, gradients: Tensor) -> None:
        """Update the weights from the gradients of the newest rows' losses with respect to them, shape [n, members]."""
        added = gradients.clamp(-STEEPEST, STEEPEST).sum(0)
        self.summed.mul_(0.5 ** (len(gradients) / HALF_LIFE)).add_(added)
        members = len(self.summed)
        logits = functional.pad(-RATE * self.summed, (0, 1), value=math.log(TEMPER))
        self.weights.copy_(logits.softmax(0)[:members] * (1 - SHARED) + SHARED / members)
