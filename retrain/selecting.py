"""From which examples a run learns (pure): the words of a declaration, and the draws that offsets decide.

    Training(data=Window())                     the newest: Training.window of them
    Training(data=Recency(5_000))               the same, each counting half as much as one 5,000 examples newer
    Training(data=Reservoir(20_000))            the newest, and 20,000 of all that was ever learned, each as likely
    Training(data=History())                    all of them

A draw is a function of seed, partition and offset, not of a generator's state: who reads the same log draws the same
examples, whatever the batches and however often it was begun anew. So a release can be made again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import ClassVar, Generic, Protocol, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.durations import seconds
from streams.events import check_field


class _Data(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What every policy can be told. Raises DeclarationError for a value outside its range."""

    mature: str | float = 0.0
    """Only events at least so old are learned from, such as "12h", whether their labels came sooner or not: else quick
    labels (a click, a flight that left on time) would be over-represented. They are taken in the order of events."""
    balance: float = 1.0
    """How many times as much as one of the commonest class an example of a rarer one may count, 1 to 100: weights go
    against frequency, up to this. Probabilities stay calibrated, see `retrain.weighing`. Binary and multi-class."""
    hard: float = 1.0
    """Share of the examples learned before that are learned again, 0 < hard <= 1: below 1 those are drawn by the loss
    that they were served with, and count the more the less likely they were drawn."""
    late: bool = False
    """Correct for positives that come after the wait and were taken for `Label(missing=...)`: see `retrain.delayed`.
    Binary only."""

    forgets: ClassVar[bool] = False
    """Whether a run after a rise of the loss learns from what came since alone, once there is enough of it."""

    def __post_init__(self) -> None:
        check_field(self, "mature", 0 <= seconds(self.mature) < math.inf, "at least 0")
        check_field(self, "balance", 1 <= self.balance <= 100, "from 1 to 100")
        check_field(self, "hard", 0 < self.hard <= 1, "above 0 and at most 1")

    @property
    def mature_s(self) -> float:
        """`mature` in seconds."""
        return seconds(self.mature)

    def held(self, window: int) -> int:
        """How many of the newest examples are kept in memory, where Training says `window`."""
        return window

    def reach(self, window: int) -> float:
        """How many examples before its position a retrainer reads again on start; infinite: all there are."""
        return self.held(window)


class Window(_Data, frozen=True, kw_only=True, tag=True):
    """The newest `Training.window` examples; after a rise of the loss, only those since."""

    forgets: ClassVar[bool] = True


class Recency(_Data, frozen=True, tag=True):
    """The newest `Training.window` examples, each counting half as much as one `half_life` examples newer: drawn so for
    replay in a warm run, weighted so in a cold one. After a rise of the loss, only those since."""

    half_life: float

    forgets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "half_life", 0 < self.half_life < math.inf, "above 0")


class Reservoir(_Data, frozen=True, tag=True):
    """All that the champion has not learned, and `size` examples of all that it has, each as likely: what is rare or
    comes back is not forgotten, and memory is bounded. Vitter, "Random sampling with a reservoir", 1985; here the
    examples with the smallest hashes are the sample."""

    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "size", self.size >= 1, "at least 1")

    def reach(self, window: int) -> float:
        """See `_Data.reach`."""
        return math.inf


class History(_Data, frozen=True, tag=True):
    """All examples that are kept in the log, but at most the newest `limit`, which must fit into memory (about a
    kilobyte each)."""

    limit: int = 1_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "limit", self.limit >= 1, "at least 1")

    def held(self, window: int) -> int:
        """See `_Data.held`."""
        return max(self.limit, window)


Data: TypeAlias = Window | Recency | Reservoir | History


class Placed(Protocol):
    """Something that lies at an offset."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


T = TypeVar("T", bound=Placed)


def draws(rows: Iterable[Placed], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, as good as drawn: SplitMix64 (Steele, Lea and Flood, 2014) of seed, partition
    and offset."""
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
    """The `size` rows with the smallest draws, in their order: a uniform sample."""
    if len(rows) <= size:
        return rows
    chosen = np.sort(np.argsort(draws(rows, seed), kind="stable")[:size])
    return [rows[n] for n in chosen]


class Sample(Generic[T]):
    """The `size` rows with the smallest draws of all that were added: a uniform sample that stays one."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._heap: list[tuple[float, int, int, T]] = []  # largest draw first, so negated

    def add(self, rows: list[T]) -> None:
        """More rows."""
        for draw, row in zip(draws(rows, self._seed).tolist(), rows, strict=True):
            entry = (-draw, row.partition, row.offset, row)
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, entry)
            elif entry[0] > self._heap[0][0]:
                heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[T]:
        """The sample, by partition and offset."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[1:3])]
