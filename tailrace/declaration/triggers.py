"""Triggers (pure): rules that start a training run. Users import them from `tailrace.triggers`.

Every trigger keeps these laws. Without new labels there is no run. A run that is due stays due while labels arrive and
time passes, as long as drift signals and live losses do not change. A run resets `labels`, `since`, the signals and the
live losses, so the same labels never start two runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, get_args

import msgspec
from cronsim import CronSim, CronSimError

from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.durations import seconds, words
from tailrace.declaration.facts import Due, Facts, Live
from tailrace.declaration.gate import Metric
from tailrace.declaration.validation import check_field
from tailrace.errors import DeclarationError

METRICS: tuple[str, ...] = get_args(Metric)
_CERTAINTY = 3.0  # standard errors: a value that is checked all the time must not fire on noise


class Trigger(Protocol):
    """Interface of a trigger, for triggers of your own."""

    def due(self, facts: Facts) -> Due | str | None:
        """Return the reason for a run now; None if none should start. A plain string is a reason of kind "other"."""


@with_field_docs
class Schedule(msgspec.Struct, frozen=True):
    """A run at every instant of a cron expression, provided that new labels arrived.

    If several instants passed while no retrainer was running, one run makes up for them. Raises DeclarationError.
    """

    cron: str
    """Cron expression of five fields, in UTC, such as "0 5 * * MON"."""

    def __post_init__(self) -> None:
        try:
            next(CronSim(self.cron, datetime(2000, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            hint = 'write five fields, such as "0 * * * *" for every full hour'
            raise DeclarationError(f"Schedule({self.cron!r}) is not a cron expression ({error}): {hint}") from None

    def due(self, facts: Facts) -> Due | None:
        """Return the reason for a run if an instant lies in (since, now] and new labels have arrived, else None."""
        time = self.time(facts)
        if facts.labels < 1 or time is None or facts.now < time:
            return None
        instant = datetime.fromtimestamp(time, UTC)
        return Due("schedule", f"schedule {self.cron!r}, due {instant:%Y-%m-%d %H:%M} UTC, {facts.labels:,} new labels")

    def time(self, facts: Facts) -> float | None:
        """The first instant after `since`, unix seconds; None if `since` is unknown. A run also needs labels."""
        if not math.isfinite(facts.since):
            return None
        instant = next(CronSim(self.cron, datetime.fromtimestamp(facts.since, UTC)), None)
        return None if instant is None else instant.timestamp()


@with_field_docs
class Labels(msgspec.Struct, frozen=True):
    """A run after every `count` new labels. Raises DeclarationError."""

    count: int
    """Number of labels, >= 1."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DeclarationError(f"Labels({self.count}): the number of labels must be at least 1")

    def due(self, facts: Facts) -> Due | None:
        """Return the reason for a run if `count` labels have arrived since the last run, else None."""
        if facts.labels < self.count:
            return None
        return Due("labels", f"{facts.labels:,} new labels (every {self.count:,})")


@with_field_docs
class Age(msgspec.Struct, frozen=True):
    """A run when the champion is older than `duration` and new labels have arrived.

    After a run that publishes nothing, the next one follows after the same duration. Raises DeclarationError.
    """

    duration: str | float
    """Maximum age, such as "6h", or a number of seconds, > 0."""

    def __post_init__(self) -> None:
        if not 0 < seconds(self.duration) < float("inf"):
            raise DeclarationError(f"Age({self.duration!r}): the age must be above 0")

    def due(self, facts: Facts) -> Due | None:
        """Return the reason for a run if champion and last run are `duration` old and labels have come, else None."""
        time = self.time(facts)
        if facts.labels < 1 or facts.created is None or time is None or facts.now < time:
            return None
        age, limit = words(facts.now - facts.created), words(seconds(self.duration))
        return Due("age", f"champion is {age} old (at most {limit}), {facts.labels:,} new labels")

    def time(self, facts: Facts) -> float | None:
        """Publication of the champion or start of the last run, the later one, plus `duration`; unix seconds. None
        while no run has made a champion. `due` requires new labels too."""
        return None if facts.created is None else max(facts.created, facts.since) + seconds(self.duration)


@with_field_docs
class Drift(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A run when the live loss rises or the distribution of a feature changes (see `retrain.control.drift`).

    The first run after a rise has few examples from after the change. More runs follow it, each when the number of
    labels since the rise has doubled, until there are `settle` of them. Of several Drift triggers in a declaration, the
    first is used. Raises DeclarationError.
    """

    effect: float = 0.1
    """Minimum rise of the loss, in its standard deviations, > 0. With the default, an error rate of 10 % must rise to
    13 %."""
    shift: float | None = 0.25
    """Minimum population stability index of a changed feature, > 0; None: features are not watched."""
    false_alarms: float = 1e-4
    """Upper bound of the probability of a false alarm per check, 0 < false_alarms < 1; the measured rate is far
    lower."""
    settle: int = 8_000
    """Labels after a rise up to which further runs follow, >= 0; 0: one run only."""

    def __post_init__(self) -> None:
        requirements = {
            "effect": (0 < self.effect < float("inf"), "above 0"),
            "shift": (self.shift is None or 0 < self.shift < float("inf"), "above 0, or None"),
            "false_alarms": (0 < self.false_alarms < 1, "between 0 and 1"),
            "settle": (self.settle >= 0, "at least 0"),
        }
        for name, (valid, requirement) in requirements.items():
            check_field(self, name, valid, requirement)

    def due(self, facts: Facts) -> Due | None:
        """Return the reason for a run after a drift, or for one that follows up a rise of the loss, else None."""
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


@with_field_docs
class Below(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """A run when a live metric is worse than a reference. Raises DeclarationError."""

    metric: Metric
    """Metric of the served scores."""
    reference: float | None = None
    """Limit in the metric's own unit (accuracy: share of correct predictions; others: losses). None: the value of the
    champion at the gate, exceeded by more than three standard errors."""
    over: int = 2_000
    """Window of the metric: the newest `over` labels since the last run, >= 2."""

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
        """Return the reason for a run if the metric of `over` labels is worse than the reference, else None."""
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
        measured, limit = self._loss(live.mean), self._loss(reference)
        return Due("below", f"{self.metric} {measured:.4f} over {live.labels:,} labels (should be {limit:.4f})")

    def _loss(self, value: float) -> float:
        """Convert a value of the metric to a loss, and back."""
        return 1 - value if self.metric == "accuracy" else value


@with_field_docs
class Worthwhile(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A run when the loss that it is expected to save is worth more than the run costs.

        saved = (live loss - the champion's at the gate, beyond noise) x events since the last run x value
        cost  = seconds of the last run x price / 3600

    The next period is assumed to resemble the last: as many events, and as much worse than a fresh model. A run is due
    when staleness has cost as much as a run, the rule of ski rental: the total cost is at most about twice the optimum
    in hindsight (Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching", 1988). On the costs of retraining:
    Zliobaite, Budka and Stahl, "Towards cost-sensitive adaptation: when is it worth updating your predictive model?",
    2015. Raises DeclarationError.
    """

    value: float
    """Cost of one unit of loss on one event, in any currency, > 0."""
    price: float
    """Cost of an hour of training, in the same currency, > 0."""
    metric: Metric = "log_loss"
    """Loss to which `value` refers; accuracy: the error rate."""
    first_s: float = 60.0
    """Assumed duration of the first run in seconds, > 0; later the duration of the last run counts."""

    def __post_init__(self) -> None:
        for name in ("value", "price", "first_s"):
            check_field(self, name, 0 < getattr(self, name) < float("inf"), "above 0")
        if self.metric not in METRICS:
            raise DeclarationError(f"Worthwhile(metric={self.metric!r}): the metrics are {', '.join(METRICS)}")

    def due(self, facts: Facts) -> Due | None:
        """Return the reason for a run if staleness has cost more since the last run than a run costs, else None."""
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
    """The live loss of this metric and window; None: not measured."""
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
    """Return the time, the number of labels and the other triggers that can start the next run."""
    missing = [trigger.count - facts.labels for trigger in triggers if isinstance(trigger, Labels)]
    others = [trigger for trigger in triggers if not isinstance(trigger, Schedule | Age | Labels)]
    kinds = (next((kind for cls, kind in _SIGNALS.items() if isinstance(one, cls)), "other") for one in others)
    labels = max(0, min(missing)) if missing else None
    return NextRun(next_time(triggers, facts), labels, tuple(dict.fromkeys(kinds)))


_SIGNALS = {Drift: "drift", Below: "below", Worthwhile: "worthwhile"}


def next_time(triggers: Sequence[Trigger], facts: Facts) -> float | None:
    """First instant at which time alone makes a run due, unix seconds; None if there is none: see `NextRun.time`."""
    timed = (trigger.time(facts) for trigger in triggers if isinstance(trigger, Schedule | Age))
    return min((time for time in timed if time is not None and math.isfinite(time)), default=None)


def first_due(triggers: Sequence[Trigger], facts: Facts) -> Due | None:
    """Return the reason of the first trigger in declared order that is due; None if none is.

    Raises DeclarationError if `Trigger.due` returns anything but Due, a string or None.
    """
    for trigger in triggers:
        answer = trigger.due(facts)
        if isinstance(answer, str):
            return Due("other", answer)
        if isinstance(answer, Due):
            return answer
        if answer is not None:
            raise DeclarationError(
                f"{type(trigger).__name__}.due returned {answer!r}: return None, or the reason for a run as "
                'Due("kind", "reason") or as a string'
            )
    return None
