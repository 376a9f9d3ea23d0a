"""Collective operations of the processes that train one module together (torch.distributed). Imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Group(NamedTuple):
    """Which of how many processes this one is, and what they do together: all call the same, in the same order."""

    rank: int = 0
    ranks: int = 1

    def shares(self, batches: Sequence[Tensor]) -> tuple[list[Tensor], list[float]]:
        """This rank's rows of every batch, and what to multiply their mean loss by, so that the ranks' mean is the
        batch's."""
        if self.ranks == 1:
            return list(batches), [1.0] * len(batches)
        shares = [batch[self.rank :: self.ranks] for batch in batches]
        weights = [len(share) * self.ranks / len(batch) for share, batch in zip(shares, batches, strict=True)]
        # A rank for which there is no row takes one of the others', which then counts nothing.
        return [share if len(share) else batch[:1] for share, batch in zip(shares, batches, strict=True)], weights

    def spread(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the ranks. Parameters that take no part in the first step must
        take none in later ones."""
        if self.ranks == 1:
            return module
        # The buffers that are released are rank 0's, so the others need not be told of them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the newer name of broadcast_buffers is not in torch 2.4
            return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False, static_graph=True)

    def mean(self, number: float) -> float:
        """The mean of the ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.SUM) / self.ranks if self.ranks > 1 else number

    def all(self, flag: bool) -> bool:
        """Whether every rank says so."""
        return bool(self._reduced(float(flag), dist.ReduceOp.MIN)) if self.ranks > 1 else flag

    def agree(self, flag: bool) -> bool:
        """What rank 0 says."""
        return bool(broadcast(torch.tensor(int(flag)))) if self.ranks > 1 else flag

    def _reduced(self, number: float, operation: dist.ReduceOp.RedOpType) -> float:
        tensor = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return float(tensor)


ALONE = Group()


def broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's tensor, on all."""
    dist.broadcast(tensor, 0)
    return tensor
