"""Declaration of online updates (pure): how often the champion learns, from which examples, and how fast."""

from __future__ import annotations

import math

import msgspec

from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.validation import check_field


@with_field_docs
class Online(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Schedule and optimiser of the online updates that keep the champion fresh between training runs.

    An update starts when `labels` new labels have arrived and `seconds` have passed since the last update. It takes one
    optimiser step on the new examples, then `replay` steps on batches from the replay buffer.
    Raises DeclarationError for a value outside its range.
    """

    labels: int = 50
    """New labels that start an update, >= 1; an update takes more if more arrive within `seconds`."""
    seconds: float = 1.0
    """Minimum seconds between two updates, >= 0. Each update publishes a release."""
    window: int = 50_000
    """Size of the replay buffer: the newest examples, >= 1."""
    replay: int = 3
    """Replayed batches per update, >= 0. Up to five times as many before the first 200 examples, fewer if an update has
    less than 50 labels."""
    batch_size: int = 96
    """Examples per replayed batch, >= 1."""
    half_life: float = 10_000.0
    """Number of examples of age after which an example is replayed half as often, > 0; infinity: uniform. The networks
    of the default ensemble have half-lives of their own."""
    learning_rate: float = 2e-3
    """Learning rate of AdamW, > 0. The default ensemble uses twice this value for a multi-class label."""
    lookahead: float = 0.4
    """Share of the distance to the stepped weights that an update moves, 0 < lookahead <= 1. Smaller values damp
    directions in which the steps disagree."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW, >= 0."""
    warm_up: int = 50
    """Steps over which the learning rate rises to its full value when a chain of updates begins, >= 0."""
    budget_s: float = 60.0
    """Seconds after which an update is cancelled, > 0."""

    def __post_init__(self) -> None:
        for name in ("labels", "window", "batch_size"):
            check_field(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("seconds", "replay", "weight_decay", "warm_up"):
            check_field(self, name, getattr(self, name) >= 0, "at least 0")
        for name in ("half_life", "learning_rate", "budget_s"):
            check_field(self, name, getattr(self, name) > 0, "above 0")
        check_field(self, "lookahead", 0 < self.lookahead <= 1, "above 0 and at most 1")
        for name in ("learning_rate", "weight_decay"):
            check_field(self, name, math.isfinite(getattr(self, name)), "finite")
