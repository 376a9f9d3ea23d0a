"""Data policies (pure): the examples that a run learns from.

Training(data=Window())                     the newest: Training.window of them
Training(data=Recency(5_000))               the same, each counting half as much as one 5,000 examples newer
Training(data=Reservoir(20_000))            the newest, and 20,000 of all that was ever learned, each as likely
Training(data=History())                    all of them
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import msgspec

from tailrace.declaration.durations import seconds
from tailrace.declaration.validation import check_field


class _Data(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What every policy can be told. Raises DeclarationError for a value outside its range."""

    mature: str | float = 0.0
    """Only events at least so old are learned from, such as "12h", whether their labels came sooner or not: else quick
    labels (a click, a flight that left on time) would be over-represented. They are taken in the order of events."""
    balance: float = 1.0
    """How many times as much as one of the commonest class an example of a rarer one may count, 1 to 100: weights go
    against frequency, up to this. Probabilities stay calibrated, see `selection.weights`. Binary and multi-class."""
    hard: float = 1.0
    """Share of the examples learned before that are learned again, 0 < hard <= 1: below 1 those are drawn by the loss
    that they were served with, and count the more the less likely they were drawn."""
    late: bool = False
    """Correct for positives that come after the wait and were taken for `Label(missing=...)`: see
    `retrain.selection.delayed_feedback`. Binary only."""

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
