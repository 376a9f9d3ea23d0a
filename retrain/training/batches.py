"""Batches of a run: the rows of each step. Importing this imports torch.

Rows are picked by index on the device, a chunk of batches at once, so that no row is handled in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tailrace.declaration.training import Training

CHUNK_ROWS = 1 << 15  # picked at once: at most a tenth of the default window in extra memory


def cold(count: int, plan: Training, seed: int) -> list[Tensor]:
    """Row indices of each step of a cold run: `epochs` shuffled passes over `count` rows."""
    random = torch.Generator().manual_seed(seed)
    passes = (torch.randperm(count, generator=random) for _ in range(plan.epochs))
    return [batch for order in passes for batch in torch.split(order, plan.batch_size)]


def warm(count: int, fresh: int, plan: Training, seed: int) -> list[Tensor]:
    """Row indices of each step of a warm run: the `fresh` newest of `count` rows in order, each batch followed by
    batches replayed from all rows up to it."""
    random = torch.Generator().manual_seed(seed)
    return list(_with_replay(torch.arange(count - fresh, count), plan, random)) if fresh else []


def ages(size: int, known: int, half_lives: Tensor, random: torch.Generator) -> Tensor:
    """Draw ages [sets, size] in [0, known) from exponential distributions with these half-lives [sets, 1], float64.

    The distributions are truncated at `known` and sampled by inversion. An infinite half-life is uniform.
    """
    uniform = torch.rand(len(half_lives), size, generator=random, dtype=torch.float64)
    drawn = -half_lives * torch.log2(1 - uniform * (1 - torch.exp2(-known / half_lives)))
    return torch.where(half_lives.isinf(), uniform * known, drawn).long().clamp_(max=known - 1)


def picked(columns: Sequence[Tensor], batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Pick the rows of each batch of indices from every column [n, ...], on the columns' device."""
    for chunk in _chunks(batches):
        index = torch.cat(chunk).to(columns[0].device)
        sizes = [len(batch) for batch in chunk]
        yield from zip(*(torch.split(column[index], sizes) for column in columns), strict=True)


def _chunks(batches: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    chunk: list[Tensor] = []
    rows = 0
    for batch in batches:
        chunk.append(batch)
        rows += len(batch)
        if rows >= CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _with_replay(rows: Tensor, plan: Training, random: torch.Generator) -> Iterator[Tensor]:
    half_lives = torch.tensor([[plan.replay_half_life]], dtype=torch.float64)
    for batch in torch.split(rows, plan.batch_size):
        yield batch
        known = int(batch[-1]) + 1
        for _ in range(plan.replay):
            yield known - 1 - ages(plan.batch_size, known, half_lives, random)[0]
