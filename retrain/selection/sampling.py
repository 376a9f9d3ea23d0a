"""Reproducible random samples of examples (pure).

A draw is a function of seed, partition and offset, not of a generator's state. Every reader of a log therefore draws
the same examples, independent of batches and restarts, and a release can be rebuilt.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class HasOffset(Protocol):
    """An item with a partition and an offset."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


T = TypeVar("T", bound=HasOffset)


def draws(rows: Iterable[HasOffset], seed: int) -> NDArray[np.float64]:
    """Draw a pseudo-random number in [0, 1) for each row, shape [n]: SplitMix64 (Steele, Lea and Flood, 2014) of seed,
    partition and offset."""
    places = np.array([(row.partition, row.offset) for row in rows], np.int64).reshape(-1, 2).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = _mixed(_mixed(_mixed(np.full(len(places), seed % 2**64, np.uint64)) + places[:, 0]) + places[:, 1])
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return mixed


def smallest(rows: list[T], size: int, seed: int) -> list[T]:
    """Select the `size` rows with the smallest draws, in their order: a uniform sample."""
    if len(rows) <= size:
        return rows
    chosen = np.sort(np.argsort(draws(rows, seed), kind="stable")[:size])
    return [rows[n] for n in chosen]


class Sample(Generic[T]):
    """Running uniform sample: the `size` rows with the smallest draws of all that were added."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._heap: list[tuple[float, int, int, T]] = []  # negated draw first, so that the largest draw is at the top

    def add(self, rows: list[T]) -> None:
        """Add rows."""
        for draw, row in zip(draws(rows, self._seed).tolist(), rows, strict=True):
            entry = (-draw, row.partition, row.offset, row)
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, entry)
            elif entry[0] > self._heap[0][0]:
                heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[T]:
        """Rows of the sample, ordered by partition and offset."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[1:3])]
