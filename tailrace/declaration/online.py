"""The rhythm of online updates (pure): how often the champion learns, from what and how fast. Torch is not imported
here."""

from __future__ import annotations

import math

import msgspec

from tailrace.declaration.validation import check_field


class Online(msgspec.Struct, frozen=True, kw_only=True):
    """How the champion is kept fresh between runs. Raises DeclarationError for a value outside its range.

    An update takes a step on the labels that are new, then `replay` steps on batches drawn from those remembered. It is
    due when `labels` new ones are there and `seconds` have passed since the last one.
    """

    labels: int = 50
    """Labels an update, >= 1; more where more come in `seconds`."""
    seconds: float = 1.0
    """Least seconds between two updates, each of which is a release, >= 0."""
    window: int = 50_000
    """Newest examples remembered for replay, >= 1."""
    replay: int = 3
    """Replayed batches an update, >= 0; up to five times as many before 200 examples are known, but fewer where an
    update has less than 50 labels."""
    batch_size: int = 96
    """Examples of a replayed batch, >= 1."""
    half_life: float = 10_000.0
    """Examples of age after which an example is replayed half as often, > 0; infinity: all the same. The default
    committee's networks have half-lives of their own."""
    learning_rate: float = 2e-3
    """AdamW's step, > 0; the default committee takes twice that for a multi-class label."""
    lookahead: float = 0.4
    """How far an update goes towards where its steps lead, 0 < lookahead <= 1: less damps what they disagree on."""
    weight_decay: float = 0.1
    """AdamW's decoupled decay, >= 0."""
    warm_up: int = 50
    """Steps over which AdamW's step rises to its full length when a chain of updates begins, >= 0."""
    budget_s: float = 60.0
    """Seconds after which an update is killed, > 0."""

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
