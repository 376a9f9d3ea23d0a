"""Replay buffer of online updates. Importing this imports torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tailrace.retrain.training.batches import ages as drawn_ages


class ReplayBuffer:
    """Ring buffer of the newest rows, which grows up to `window` rows.

    A row is addressed by its age in examples: 0 is the newest. `written` counts all rows that were ever added.
    """

    def __init__(self, window: int) -> None:
        self._window, self.written = window, 0
        self._columns: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return min(self.written, self._window)

    def add(self, *columns: Tensor) -> None:
        """Add rows as columns [n, ...], oldest first; the last column is the targets. They replace the oldest rows."""
        skipped = max(len(columns[0]) - self._window, 0)
        columns = tuple(column[skipped:] for column in columns)
        self._grow(columns)
        self.written += skipped
        places = (torch.arange(len(columns[0])) + self.written) % len(self._columns[0])
        for own, new in zip(self._columns, columns, strict=True):
            own.index_copy_(0, places, new)
        self.written += len(places)

    def take(self, ages: Tensor) -> tuple[Tensor, ...]:
        """Rows of these ages [...], as columns [..., *]."""
        places = ((self.written - 1 - ages) % len(self._columns[0])).flatten()
        return tuple(
            column.index_select(0, places).view(*ages.shape, *column.shape[1:])  # column[places] takes 3 times as long
            for column in self._columns
        )

    def rows(self) -> tuple[Tensor, ...]:
        """All rows, oldest first."""
        return self.take(torch.arange(len(self) - 1, -1, -1))

    def uniform_ages(self, size: int, random: torch.Generator) -> Tensor:
        """Draw `size` ages, all equally likely; if there are no more rows than that, the age of each row once."""
        count = len(self)
        return torch.randint(count, (size,), generator=random) if count > size else torch.arange(count)

    def decayed_ages(self, size: int, half_lives: Tensor, random: torch.Generator) -> Tensor:
        """Draw ages [sets, size] with these half-lives [sets, 1]: see `tailrace.retrain.training.batches.ages`."""
        return drawn_ages(size, len(self), half_lives, random)

    def target_deviation(self) -> float:
        """Standard deviation of the targets; 1 if they do not vary."""
        return float(self._columns[-1][: len(self)].double().std(correction=0)) or 1.0

    def _grow(self, columns: tuple[Tensor, ...]) -> None:
        """Make room for the rows: at least double the capacity, up to the window. Until it is full nothing wraps."""
        capacity = len(self._columns[0]) if self._columns else 0
        needed = min(self.written + len(columns[0]), self._window)
        if needed <= capacity:
            return
        larger = tuple(
            column.new_empty((min(max(needed, 2 * capacity), self._window), *column.shape[1:])) for column in columns
        )
        for new, old in zip(larger, self._columns, strict=False):
            new[: self.written] = old[: self.written]
        self._columns = larger
