"""The rows that online updates replay. Importing this imports torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tailrace.retrain.training.batches import ages as drawn_ages


class Memory:
    """The newest rows, in a ring that grows up to `window`. `written`: how many there ever were."""

    def __init__(self, window: int) -> None:
        self._window, self.written = window, 0
        self._arrays: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return min(self.written, self._window)

    def add(self, *arrays: Tensor) -> None:
        """Rows, oldest first; those that are too many push the oldest out."""
        skipped = max(len(arrays[0]) - self._window, 0)
        arrays = tuple(array[skipped:] for array in arrays)
        self._grow(arrays)
        self.written += skipped
        places = (torch.arange(len(arrays[0])) + self.written) % len(self._arrays[0])
        for own, new in zip(self._arrays, arrays, strict=True):
            own.index_copy_(0, places, new)
        self.written += len(places)

    def take(self, ages: Tensor) -> tuple[Tensor, ...]:
        """The rows of these ages: 0 is the newest."""
        places = ((self.written - 1 - ages) % len(self._arrays[0])).flatten()
        return tuple(
            array.index_select(0, places).view(*ages.shape, *array.shape[1:])  # [places] takes thrice as long
            for array in self._arrays
        )

    def rows(self) -> tuple[Tensor, ...]:
        """All, oldest first."""
        return self.take(torch.arange(len(self) - 1, -1, -1))

    def any(self, size: int, random: torch.Generator) -> Tensor:
        """Ages [size], each as likely; each row once where there are no more."""
        known = len(self)
        return torch.randint(known, (size,), generator=random) if known > size else torch.arange(known)

    def drawn(self, size: int, half_lives: Tensor, random: torch.Generator) -> Tensor:
        """Ages [sets, size] of what is known: see `tailrace.retrain.training.batches.ages`."""
        return drawn_ages(size, len(self), half_lives, random)

    def deviation(self) -> float:
        """The standard deviation of the targets; 1 where they do not vary."""
        return float(self._arrays[-1][: len(self)].double().std(correction=0)) or 1.0

    def _grow(self, arrays: tuple[Tensor, ...]) -> None:
        """Make room for these rows: twice as much as there was, up to the window. Until it is full nothing wraps."""
        room, due = len(self._arrays[0]) if self._arrays else 0, min(self.written + len(arrays[0]), self._window)
        if due <= room:
            return
        larger = tuple(array.new_empty((min(max(due, 2 * room), self._window), *array.shape[1:])) for array in arrays)
        for new, old in zip(larger, self._arrays, strict=False):
            new[: self.written] = old[: self.written]
        self._arrays = larger
