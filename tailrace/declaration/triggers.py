"""When to train (pure): a trigger looks at facts and says why a run is due, or that none is.

Laws that every trigger keeps: no new labels, no run; what was due stays due while labels come in and time passes (and
signals and live figures stay what they are); a run resets `labels`, `since`, signals and live figures, so nothing is
due twice for the same labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, get_args

import msgspec
from cronsim import CronSim, CronSimError

from tailrace.declaration.durations import seconds, words
from tailrace.declaration.facts import Due, Facts, Live
from tailrace.declaration.gate import Metric
from tailrace.declaration.validation import check_field
from tailrace.errors import DeclarationError

METRICS: tuple[str, ...] = get_args(Metric)
_CERTAINTY = 3.0  # standard errors: a figure that is looked at all the time must not fire on noise


class Trigger(Protocol):
    """Decides whether a run is due."""

    def due(self, facts: Facts) -> Due | None:
        """The kind of trigger and the reason in words, with numbers; None when no run is due."""


class Schedule(msgspec.Struct, frozen=True):
    """A run at every instant of a cron expression (five fields, UTC) that has new labels.

    An instant that passed unnoticed is made up for once, however many have passed. Raises DeclarationError.
    """

    cron: str

    def __post_init__(self) -> None:
        try:
            next(CronSim(self.cron, datetime(2000, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            hint = 'write five fields, such as "0 * * * *" for every full hour'
            raise DeclarationError(f"Schedule({self.cron!r}) is no cron expression ({error}): {hint}") from None

    def due(self, facts: Facts) -> Due | None:
        """Due when an instant lies in (since, now]."""
        time = self.time(facts)
        if facts.labels < 1 or time is None or facts.now < time:
            return None
        instant = datetime.fromtimestamp(time, UTC)
        return Due("schedule", f"schedule {self.cron!r}, due {instant:%Y-%m-%d %H:%M} UTC, {facts.labels:,} new labels")

    def time(self, facts: Facts) -> float | None:
        """The first instant after `since`, unix seconds; None while `since` is unknown. A run also needs labels."""
        if not math.isfinite(facts.since):
            return None
        instant = next(CronSim(self.cron, datetime.fromtimestamp(facts.since, UTC)), None)
        return None if instant is None else instant.timestamp()


class Labels(msgspec.Struct, frozen=True):
    """A run each time so many new labels have come. Raises DeclarationError."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DeclarationError(f"Labels({self.count}): the number of labels must be at least 1")

    def due(self, facts: Facts) -> Due | None:
        """Due when `count` labels have come since the last run."""
        if facts.labels < self.count:
            return None
        return Due("labels", f"{facts.labels:,} new labels (every {self.count:,})")


class Age(msgspec.Struct, frozen=True):
    """A run when the champion is older than this duration, such as "6h", and new labels have come.

    A run that publishes nothing is followed by another when as much time has passed again. Raises DeclarationError.
    """

    duration: str | float

    def __post_init__(self) -> None:
        if not 0 < seconds(self.duration) < float("inf"):
            raise DeclarationError(f"Age({self.duration!r}): the age must be above 0")

    def due(self, facts: Facts) -> Due | None:
        """Due when the champion, and the last run, are `duration` old."""
        time = self.time(facts)
        if facts.labels < 1 or facts.created is None or time is None or facts.now < time:
            return None
        age, limit = words(facts.now - facts.created), words(seconds(self.duration))
        return Due("age", f"champion is {age} old (at most {limit}), {facts.labels:,} new labels")

    def time(self, facts: Facts) -> float | None:
        """`duration` after the champion and the last run, unix seconds; None without a champion. A run also needs
        labels."""
        return None if facts.created is None else max(facts.created, facts.since) + seconds(self.duration)


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A run when the world has changed: the live loss rose, or inputs are unlike any seen before (see control.drift).

    The first run after a rise knows little of the new world. So it is followed by others, each when twice as many
    labels have come since the rise, until there are `settle` of them: few runs, and none is far behind.
    One Drift is watched in a declaration, the first. Raises DeclarationError.
    """

    effect: float = 0.1
    """Least rise of the loss that matters, in its standard deviations, > 0. For errors at 10 %: to 13 %."""
    shift: float | None = 0.25
    """Least population stability index of a feature that matters, > 0; None: inputs are not watched."""
    false_alarms: float = 1e-4
    """Bound of the chance of a false alarm at one look, 0 < false_alarms < 1; what happens is far less."""
    settle: int = 8_000
    """Labels after a rise until which runs follow, >= 0; 0: one run only."""

    def __post_init__(self) -> None:
        fine = {
            "effect": (0 < self.effect < float("inf"), "above 0"),
            "shift": (self.shift is None or 0 < self.shift < float("inf"), "above 0, or None"),
            "false_alarms": (0 < self.false_alarms < 1, "between 0 and 1"),
            "settle": (self.settle >= 0, "at least 0"),
        }
        for name, (good, range_) in fine.items():
            check_field(self, name, good, range_)

    def due(self, facts: Facts) -> Due | None:
        """Due when something has drifted since the last run, or to follow up a rise of the loss."""
        drift = facts.drift
        if facts.labels < 1 or drift is None:
            return None
        if drift.loss is not None:
            rise = drift.loss
            return Due("drift", f"loss rose from {rise.before:.4f} to {rise.after:.4f}, {rise.labels:,} labels ago")
        if drift.features:
            most = max(drift.features, key=lambda change: change.statistic)
            others = f" and {len(drift.features) - 1} more" if len(drift.features) > 1 else ""
            shift = f"{most.what}{others} shifted"
            return Due("drift", f"{shift}: stability index {most.statistic:.2f} (at most {most.threshold:.2f})")
        if drift.changed is None or not 0 < 2 * drift.learned <= min(drift.changed, self.settle):
            return None
        return Due("drift", f"{drift.changed:,} labels since the loss rose, {drift.learned:,} at the last run")


class Below(msgspec.Struct, frozen=True):
    """A run when a live metric is worse than it should be, over the newest `over` labels since the last run.

    `reference`: a number in the metric's own sense (accuracy: the share that is right; the others: losses), which the
    live value must pass; without one, what the champion had at the gate, which it must pass by more than noise (three
    standard errors). Raises DeclarationError.
    """

    metric: Metric
    reference: float | None = None
    over: int = 2_000

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise DeclarationError(f"Below({self.metric!r}): the metrics are {', '.join(METRICS)}")
        if self.reference is not None and not 0 <= self.reference < float("inf"):
            raise DeclarationError(f"Below(reference={self.reference!r}): it must be a number of at least 0")
        if self.metric == "accuracy" and self.reference is not None and self.reference > 1:
            raise DeclarationError(f"Below(reference={self.reference!r}): accuracy is a share, such as 0.9")
        if self.over < 2:
            raise DeclarationError(f"Below(over={self.over!r}): it must be at least 2 labels")

    def due(self, facts: Facts) -> Due | None:
        """Due when `over` labels have been measured and are worse than the reference."""
        live = live_of(facts, self.metric, self.over)
        if facts.labels < 1 or live is None or live.labels < self.over:
            return None
        if self.reference is None:
            worse, reference = live.worse(_CERTAINTY) > 0, live.reference
        else:
            reference = self._loss(self.reference)
            worse = live.mean > reference
        if not worse or reference is None:
            return None
        found, wanted = self._loss(live.mean), self._loss(reference)
        return Due("below", f"{self.metric} {found:.4f} over {live.labels:,} labels (should be {wanted:.4f})")

    def _loss(self, value: float) -> float:
        """A metric's value as a loss, and back."""
        return 1 - value if self.metric == "accuracy" else value


class Worthwhile(msgspec.Struct, frozen=True, kw_only=True):
    """A run when it pays: when the loss that it is expected to save is worth more than it costs.

        saved = (live loss - the champion's at the gate, beyond noise) x events since the last run x value
        cost  = seconds of the last run x price / 3600

    The next period is expected to be like the last: as many events, and as much worse than a fresh model. So a run is
    due when staleness has cost as much as a run, which is the rule of ski rental: whatever comes, at most about twice
    what hindsight would have paid (Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching", 1988). On costs
    of retraining: Zliobaite, Budka and Stahl, "Towards cost-sensitive adaptation: when is it worth updating your
    predictive model?", 2015. Raises DeclarationError.
    """

    value: float
    """What one unit of loss costs on one event, in any currency, > 0."""
    price: float
    """What an hour of training costs, in the same, > 0."""
    metric: Metric = "log_loss"
    """The loss that `value` is about; accuracy: the error rate."""
    first_s: float = 60.0
    """Seconds that a run is taken to last before there was one, > 0."""

    def __post_init__(self) -> None:
        for name in ("value", "price", "first_s"):
            check_field(self, name, 0 < getattr(self, name) < float("inf"), "above 0")
        if self.metric not in METRICS:
            raise DeclarationError(f"Worthwhile(metric={self.metric!r}): the metrics are {', '.join(METRICS)}")

    def due(self, facts: Facts) -> Due | None:
        """Due when what staleness has cost since the last run exceeds what a run costs."""
        live = live_of(facts, self.metric, 0)
        if facts.labels < 1 or live is None:
            return None
        events = facts.labels if facts.events is None else max(facts.events, facts.labels)
        saved = live.worse(_CERTAINTY) * events * self.value
        cost = (self.first_s if facts.run_s is None else facts.run_s) * self.price / 3600
        if not saved > cost:
            return None
        loss = f"{self.metric} {live.mean:.4f}, was {live.reference:.4f}"
        return Due("worthwhile", f"a run saves {saved:.4g} and costs {cost:.4g}: {loss}")


def live_of(facts: Facts, metric: str, over: int) -> Live | None:
    """The live figure that was measured for a trigger."""
    return next((live for live in facts.live if live.metric == metric and live.over == over), None)


class NextRun(NamedTuple):
    """Everything that can start the next run: time, a number of labels, signals. The first to come starts it."""

    time: float | None
    """First instant at which a schedule or an age is due, given at least one new label; unix seconds on the clock of
    the facts. It may lie in the past. None: no trigger depends on time, or the time is not known yet."""
    labels: int | None
    """Labels that are still missing until a `Labels` trigger is due, >= 0; None: there is no such trigger."""
    signals: tuple[str, ...]
    """Kinds of the other triggers in declared order: "drift", "below", "worthwhile"; a user's own are "other"."""


def next_run(triggers: Sequence[Trigger], facts: Facts) -> NextRun:
    """Answer what the declared triggers wait for."""
    missing = [trigger.count - facts.labels for trigger in triggers if isinstance(trigger, Labels)]
    others = [trigger for trigger in triggers if not isinstance(trigger, Schedule | Age | Labels)]
    kinds = (next((kind for cls, kind in _SIGNALS.items() if isinstance(one, cls)), "other") for one in others)
    labels = max(0, min(missing)) if missing else None
    return NextRun(next_time(triggers, facts), labels, tuple(dict.fromkeys(kinds)))


_SIGNALS = {Drift: "drift", Below: "below", Worthwhile: "worthwhile"}


def next_time(triggers: Sequence[Trigger], facts: Facts) -> float | None:
    """First instant at which time alone makes a run due: see `NextRun.time`."""
    timed = (trigger.time(facts) for trigger in triggers if isinstance(trigger, Schedule | Age))
    return min((time for time in timed if time is not None and math.isfinite(time)), default=None)


def first_due(triggers: Sequence[Trigger], facts: Facts) -> Due | None:
    """The answer of the first trigger, in declared order, that is due."""
    return next((due for trigger in triggers if (due := trigger.due(facts)) is not None), None)
