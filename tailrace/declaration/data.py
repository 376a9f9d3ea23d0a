"""Data policies (pure): the examples that a training run learns from. Users import them from `tailrace.data`.

Training(data=Window())             the newest Training.window examples
Training(data=Recency(5_000))       the same; an example counts half as much as one 5,000 examples newer
Training(data=Reservoir(20_000))    the newest, and a uniform sample of 20,000 of all earlier ones
Training(data=History())            all examples
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import msgspec

from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.durations import seconds
from tailrace.declaration.validation import check_field


class _Data(msgspec.Struct, frozen=True, kw_only=True, tag=True, repr_omit_defaults=True):
    """Options of every data policy. Raises DeclarationError for a value outside its range."""

    mature: str | float = 0.0
    """Minimum age of an event, such as "12h": younger ones wait, even if their label is known. Otherwise quick labels
    (a click, an on-time departure) would be over-represented. Examples are then taken in the order of events."""
    balance: float = 1.0
    """Maximum weight of an example of a rare class, relative to one of the most common class, 1 to 100. Weights are
    inverse to class frequency up to this limit. Probabilities stay calibrated, see `selection.weights`. Binary and
    multi-class."""
    hard: float = 1.0
    """Share of the previously learned examples that are learned again, 0 < hard <= 1. Below 1 they are sampled by the
    loss that they were served with, and weighted by the inverse of the sampling probability."""
    late: bool = False
    """Correct for positive labels that arrive after the wait and were counted as `Label(missing=...)`: see
    `retrain.selection.delayed_feedback`. Binary only."""

    forgets: ClassVar[bool] = False
    """Whether a run after a rise of the loss learns only from the examples since, once there are enough of them."""

    def __post_init__(self) -> None:
        check_field(self, "mature", 0 <= seconds(self.mature) < math.inf, "at least 0")
        check_field(self, "balance", 1 <= self.balance <= 100, "from 1 to 100")
        check_field(self, "hard", 0 < self.hard <= 1, "above 0 and at most 1")

    @property
    def mature_s(self) -> float:
        """`mature` in seconds."""
        return seconds(self.mature)

    def held(self, window: int) -> int:
        """Number of newest examples to keep in memory, given `Training.window`."""
        return window

    def reach(self, window: int) -> float:
        """Number of examples before its position that a retrainer reads again on start; infinite: all."""
        return self.held(window)


@with_field_docs
class Window(_Data, frozen=True, kw_only=True, tag=True):
    """The newest `Training.window` examples; after a rise of the loss, only those since the rise."""

    forgets: ClassVar[bool] = True


@with_field_docs
class Recency(_Data, frozen=True, tag=True):
    """The newest `Training.window` examples, weighted by exponential decay; after a rise of the loss, only those since.

    A warm run samples its replayed examples with this probability, a cold run weights all examples by it.
    """

    half_life: float
    """Number of examples of age after which an example counts half as much, > 0."""

    forgets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "half_life", 0 < self.half_life < math.inf, "above 0")


@with_field_docs
class Reservoir(_Data, frozen=True, tag=True):
    """All examples that the champion has not learned, and a uniform sample of those that it has.

    Rare and recurring patterns are not forgotten, and memory is bounded (Vitter, "Random sampling with a reservoir",
    1985). The sample consists of the examples with the smallest hashes.
    """

    size: int
    """Size of the sample, in examples, >= 1."""
    seed: int = 0
    """Seed of the hash."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "size", self.size >= 1, "at least 1")

    def reach(self, window: int) -> float:
        """Infinite: the sample is drawn from all examples in the log."""
        return math.inf


@with_field_docs
class History(_Data, frozen=True, tag=True):
    """All examples in the log, up to a limit."""

    limit: int = 1_000_000
    """Maximum number of examples, the newest; they must fit into memory (about 1 kB each). >= 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "limit", self.limit >= 1, "at least 1")

    def held(self, window: int) -> int:
        """The limit, or `Training.window` if that is larger."""
        return max(self.limit, window)


Data: TypeAlias = Window | Recency | Reservoir | History
