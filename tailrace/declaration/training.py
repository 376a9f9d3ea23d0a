"""The training plan (pure): on which examples, how long and how fast a run learns. Torch is not imported here."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import msgspec

from tailrace.declaration.data import Data, Recency, Window
from tailrace.declaration.validation import check_field
from tailrace.errors import DeclarationError

LearningRateSchedule: TypeAlias = Literal["constant", "cosine", "one_cycle"]
SCHEDULES: tuple[LearningRateSchedule, ...] = get_args(LearningRateSchedule)
Start: TypeAlias = Literal["warm", "scratch", "transfer"]
_STARTS = ("warm", "scratch", "transfer")


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How a run trains. Raises DeclarationError for a value outside its range.

    A *warm* run starts from the champion and takes the examples that it has not seen, oldest first, each batch followed
    by `replay` batches from the whole window, drawn with a probability that halves every `half_life` examples of age.
    A *cold* run (no champion, other features or another network, or `start="scratch"`) goes over the window `epochs`
    times. A run with `start="transfer"` does so too, from the champion's weights wherever a tensor of the declared
    network has the name and the shape of one of the champion's: a network that has grown keeps what still fits.

    The newest `holdout` share of what the champion has not seen (at least `holdout_least`, at most `holdout_most`
    examples, never more than half) is kept from training for the gate; the next run learns from it.
    """

    data: Data = Window()
    """Which examples a run learns from, and how much each counts: see `tailrace.retrain.selection.sampling`."""
    window: int = 50_000
    """Newest examples kept in memory and trained on, >= 1."""
    min_examples: int = 500
    """No run before so many examples are there, >= 1."""
    epochs: int = 3
    """Passes of a cold run over the window, >= 1."""
    batch_size: int = 64
    """Examples a step, >= 1."""
    replay: int = 2
    """Replayed batches for each batch of new examples in a warm run, >= 0."""
    half_life: float = 10_000.0
    """Examples of age after which an example is replayed half as often, > 0; infinity: all the same."""
    learning_rate: float = 1e-3
    """AdamW's step at its largest, > 0."""
    schedule: Literal["auto", LearningRateSchedule] = "auto"
    """How the step changes over a run: see `training.schedules`; "auto": "constant" when warm, "cosine" otherwise."""
    warm_up: float = 0.0
    """Share of a run's steps in which the step rises to its largest, 0 <= warm_up < 1."""
    weight_decay: float = 0.1
    """AdamW's decoupled decay, >= 0. Weights stay below about its inverse: lower it for modules that need larger."""
    clip: float = 1.0
    """Largest norm of the gradient, > 0."""
    ema: float = 0.0
    """Decay a step of the weights' moving average, 0 <= ema < 1; above 0 the average is what is released."""
    patience: int = 0
    """A run ends early after so many evaluations without a smaller loss on the newest `validation` share of its rows,
    which are then not trained on; the weights with the smallest are kept. >= 0; 0: no evaluations, all rows train."""
    validation: float = 0.1
    """Share of a run's rows (of the unseen ones in a warm run) that it is evaluated on, 0 < validation <= 0.5."""
    holdout: float = 0.1
    """Share of the unseen examples kept for the gate, 0 < holdout < 1."""
    holdout_least: int = 100
    holdout_most: int = 2_000
    start: Start = "warm"
    """What a run starts from, where there is a champion: "warm", "scratch" or "transfer"."""
    frozen: tuple[str, ...] = ()
    """Patterns, such as "body.*", of the names of parameters that a run leaves as they are; each must match some."""
    compile: bool = False
    """Whether the network goes through torch.compile first; where that fails, a run says so and goes on without."""
    seed: int = 0
    """Base of every run's seed, >= 0; a run's own seed is in its release."""
    budget_s: float = 600.0
    """Seconds after which a run is killed, > 0."""
    threads: int = 1
    """CPU threads of the training process, >= 1. One makes runs repeat bit for bit on any machine of the same kind."""
    nice: int = 5
    """How much the training process steps back behind the serving ones, 0 to 19."""
    clock: Literal["wall", "event"] = "wall"
    """Which time schedules follow: the wall's, or the newest label's, so that replayed history triggers as it did."""

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
        """Raises DeclarationError for what does not go with online updates."""
        if self.start == "transfer" or self.frozen:
            raise DeclarationError(
                "Training(start='transfer') and Training(frozen) need online=False: online updates move every "
                "parameter, and learn from the examples that the gate holds out"
            )

    @property
    def replay_half_life(self) -> float:
        """The half-life of replay: the data policy's own, where it has one."""
        return self.data.half_life if isinstance(self.data, Recency) else self.half_life

    def held_out(self, unseen: int) -> int:
        """How many of the newest of `unseen` examples are kept for the gate: never more than half of them."""
        wanted = min(max(round(unseen * self.holdout), self.holdout_least), self.holdout_most)
        return min(wanted, unseen // 2)

    def validated(self, rows: int) -> int:
        """How many of the newest of `rows` a run does not train on, to be evaluated on them; none without patience."""
        return round(rows * self.validation) if self.patience else 0
