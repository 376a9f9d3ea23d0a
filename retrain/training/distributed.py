"""Collective operations of the processes that train one module (torch.distributed). Importing this imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Group(NamedTuple):
    """Rank of this process among `ranks` processes, and their collective operations.

    Every process calls the same operations in the same order.
    """

    rank: int = 0
    ranks: int = 1

    def shares(self, batches: Sequence[Tensor]) -> tuple[list[Tensor], list[float]]:
        """Split each batch of row indices: this rank's share, and the factor on the share's mean loss.

        With these factors the mean over the ranks equals the mean loss of the batch.
        """
        if self.ranks == 1:
            return list(batches), [1.0] * len(batches)
        shares = [batch[self.rank :: self.ranks] for batch in batches]
        weights = [len(share) * self.ranks / len(batch) for share, batch in zip(shares, batches, strict=True)]
        # A rank without rows takes a row of another rank, with factor 0.
        return [share if len(share) else batch[:1] for share, batch in zip(shares, batches, strict=True)], weights

    def spread(self, module: nn.Module) -> nn.Module:
        """Wrap the module so that its gradients are averaged over the ranks.

        Parameters without a gradient in the first step must have none in later steps.
        """
        if self.ranks == 1:
            return module
        # The released buffers are those of rank 0, so they are not broadcast.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the newer name of broadcast_buffers is not in torch 2.4
            return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False, static_graph=True)

    def mean(self, number: float) -> float:
        """Mean of the ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.SUM) / self.ranks if self.ranks > 1 else number

    def all(self, flag: bool) -> bool:
        """True if `flag` is true on every rank."""
        return bool(self._reduced(float(flag), dist.ReduceOp.MIN)) if self.ranks > 1 else flag

    def agree(self, flag: bool) -> bool:
        """Value of `flag` on rank 0."""
        return bool(broadcast(torch.tensor(int(flag)))) if self.ranks > 1 else flag

    def _reduced(self, number: float, operation: dist.ReduceOp.RedOpType) -> float:
        tensor = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return float(tensor)


ALONE = Group()


def broadcast(tensor: Tensor) -> Tensor:
    """Broadcast the tensor of rank 0 to all ranks, in place."""
    dist.broadcast(tensor, 0)
    return tensor
