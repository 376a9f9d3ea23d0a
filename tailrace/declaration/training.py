"""Declaration of training runs (pure): on which examples, for how long and how fast a run learns."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import msgspec

from tailrace.declaration.data import Data, Recency, Window
from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.validation import check_field
from tailrace.errors import DeclarationError

LearningRateSchedule: TypeAlias = Literal["constant", "cosine", "one_cycle"]
SCHEDULES: tuple[LearningRateSchedule, ...] = get_args(LearningRateSchedule)
Start: TypeAlias = Literal["warm", "scratch", "transfer"]
_STARTS: tuple[Start, ...] = get_args(Start)


@with_field_docs
class Training(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Plan of a training run. Raises DeclarationError for a value outside its range.

    A *warm* run starts from the champion. It learns the examples that the champion has not seen, oldest first; after
    each batch follow `replay` batches from the whole window, sampled with a probability that halves every `half_life`
    examples of age. A *cold* run (no champion, other features, another network, or `start="scratch"`) passes over the
    window `epochs` times. A run with `start="transfer"` does the same, but each tensor with the name and shape of one
    of the champion's starts from it: an extended network keeps the weights that still fit.

    The newest `holdout` share of the examples that the champion has not seen (at least `holdout_least`, at most
    `holdout_most` examples, never more than half) is held out for the promotion gate. The next run learns from them.
    """

    data: Data = Window()
    """Data policy: the examples that a run learns from, and their weights. See `tailrace.data`."""
    window: int = 50_000
    """Newest examples that are kept in memory and trained on, >= 1."""
    min_examples: int = 500
    """Number of examples before the first run, 1 <= min_examples <= window."""
    epochs: int = 3
    """Passes of a cold run over the window, >= 1."""
    batch_size: int = 64
    """Examples per optimiser step, >= 1."""
    replay: int = 2
    """Replayed batches per batch of new examples in a warm run, >= 0."""
    half_life: float = 10_000.0
    """Number of examples of age after which an example is replayed half as often, > 0; infinity: uniform."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW, > 0."""
    schedule: Literal["auto", LearningRateSchedule] = "auto"
    """Learning-rate schedule of a run, see `retrain.training.schedules`. "auto": "constant" for a warm run, "cosine"
    otherwise."""
    warm_up: float = 0.0
    """Share of a run's steps in which the learning rate rises to its peak, 0 <= warm_up < 1."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW, >= 0. It bounds weights to about its inverse: lower it for modules that need
    larger ones."""
    clip: float = 1.0
    """Maximum norm of the gradient, > 0."""
    ema: float = 0.0
    """Decay per step of the moving average of the weights, 0 <= ema < 1. Above 0, the average is released."""
    patience: int = 0
    """Early stopping: evaluations without an improvement before a run ends, >= 0. A run is then evaluated on the newest
    `validation` share of its examples, does not train on them, and keeps the best weights. 0: off."""
    validation: float = 0.1
    """Share of a run's examples (warm run: of the unseen ones) for early stopping, 0 < validation <= 0.5."""
    holdout: float = 0.1
    """Share of the unseen examples that is held out for the gate, 0 < holdout < 1."""
    holdout_least: int = 100
    """Minimum number of held-out examples, >= 1."""
    holdout_most: int = 2_000
    """Maximum number of held-out examples, >= holdout_least."""
    start: Start = "warm"
    """Initial weights of a run if there is a champion: "warm", "scratch" or "transfer"."""
    frozen: tuple[str, ...] = ()
    """Patterns of the names of parameters that a run does not change, such as "body.*". Each must match a parameter."""
    compile: bool = False
    """Whether a run uses torch.compile. If compilation fails, the run logs it and goes on without."""
    seed: int = 0
    """Base of the seeds of all runs, >= 0. The seed of each run is stored in its release."""
    budget_s: float = 600.0
    """Seconds after which a run is cancelled, > 0."""
    threads: int = 1
    """CPU threads of the training process, >= 1. With one thread, runs repeat bit for bit on machines of the same
    kind."""
    nice: int = 5
    """Niceness of the training process, 0 to 19: higher values give way to the serving processes."""
    clock: Literal["wall", "event"] = "wall"
    """Clock of the triggers: wall time, or the time of the newest label, so that replayed history triggers the same
    runs."""

    def __post_init__(self) -> None:
        for name in ("window", "min_examples", "epochs", "batch_size", "holdout_least", "threads"):
            check_field(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("half_life", "learning_rate", "clip", "budget_s"):
            check_field(self, name, getattr(self, name) > 0, "above 0")
        for name in ("replay", "weight_decay", "seed", "patience"):
            check_field(self, name, getattr(self, name) >= 0, "at least 0")
        check_field(self, "learning_rate", math.isfinite(self.learning_rate), "finite")
        check_field(self, "holdout", 0 < self.holdout < 1, "between 0 and 1")
        check_field(self, "validation", 0 < self.validation <= 0.5, "above 0 and at most 0.5")
        for name in ("warm_up", "ema"):
            check_field(self, name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        check_field(self, "start", self.start in _STARTS, f"one of {', '.join(_STARTS)}")
        schedules = ("auto", *SCHEDULES)
        check_field(self, "schedule", self.schedule in schedules, f"one of {', '.join(schedules)}")
        check_field(
            self, "frozen", not isinstance(self.frozen, str) and all(self.frozen), 'patterns, such as ("body.*",)'
        )
        check_field(
            self,
            "holdout_most",
            self.holdout_most >= self.holdout_least,
            f"at least holdout_least={self.holdout_least}",
        )
        check_field(self, "min_examples", self.min_examples <= self.window, f"at most window={self.window}")
        check_field(self, "nice", 0 <= self.nice <= 19, "between 0 and 19")

    def check_beside_updates(self) -> None:
        """Raise DeclarationError for options that exclude online updates."""
        if self.start == "transfer" or self.frozen:
            raise DeclarationError(
                "Training(start='transfer') and Training(frozen) need online=False: online updates move every "
                "parameter and learn from the examples that the gate holds out"
            )

    @property
    def replay_half_life(self) -> float:
        """Half-life of replay in examples: that of the data policy, if it has one."""
        return self.data.half_life if isinstance(self.data, Recency) else self.half_life

    def held_out(self, unseen: int) -> int:
        """Return how many of `unseen` examples, the newest, a run holds out for the promotion gate; at most half."""
        count = min(max(round(unseen * self.holdout), self.holdout_least), self.holdout_most)
        return min(count, unseen // 2)

    def validated(self, rows: int) -> int:
        """Number of the newest of `rows` examples that are kept for early stopping; 0 without `patience`."""
        return round(rows * self.validation) if self.patience else 0
