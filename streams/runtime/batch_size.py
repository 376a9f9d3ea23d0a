"""Adaptive batch size (pure): as many records as can be processed within a latency target."""

from __future__ import annotations


class BatchSize:
    """Adapts the batch size so that a batch takes about `target` seconds (additive growth, proportional cut).

    The size limits the batches of a backlog; without one, batches hold the records that have arrived.
    Raises ValueError unless target > 0 and 0 < smallest <= largest.
    """

    def __init__(self, target: float = 0.02, smallest: int = 64, largest: int = 8192) -> None:
        if not (target > 0 and 0 < smallest <= largest):
            raise ValueError(f"target {target} s must be positive and 0 < smallest {smallest} <= largest {largest}")
        self._target, self._smallest, self._largest = target, smallest, largest
        self.size = min(largest, max(smallest, 1024))

    def took(self, records: int, seconds: float) -> None:
        """Adapt the batch size to the time `seconds` in which a batch of `records` was processed."""
        if seconds > self._target:
            fitting = int(records * self._target / seconds)
            self.size = max(self._smallest, min(self.size, max(fitting, self.size // 2)))
        elif records >= self.size:  # it was full, and quick
            self.size = min(self._largest, self.size + self.size // 4 + 1)
