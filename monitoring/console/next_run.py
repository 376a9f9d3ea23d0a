"""When the next run comes, in words (pure): what the declared triggers wait for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cronsim import CronSim

from tailrace.declaration.durations import seconds, words
from tailrace.declaration.triggers import Age, Labels, Schedule, Trigger

_ON_SIGNAL = {"Drift": "drift", "Below": "a worse metric", "Worthwhile": "worth"}


def upcoming(
    triggers: Sequence[Trigger], *, labels: int, champion_since: float | None, now: float, clock: str
) -> str | None:
    """The soonest run that time brings, then what else may bring one; None where no run is declared.

    `labels` have come since the last run, `champion_since` and `now` are unix seconds on the plan's `clock`, wall or
    event: in the latter's time the instant itself is told, as nobody knows how fast it passes.
    """
    if not triggers:
        return None
    instants = [instant for trigger in triggers if (instant := _instant(trigger, champion_since, now)) is not None]
    told = [_at(min(instants), now, clock)] if instants else []
    left = [trigger.count - labels for trigger in triggers if isinstance(trigger, Labels)]
    if left:
        told.append(f"after {max(0, min(left)):,} more labels")
    signals = [_ON_SIGNAL[name] for trigger in triggers if (name := type(trigger).__name__) in _ON_SIGNAL]
    if signals:
        told.append(f"on {' or '.join(dict.fromkeys(signals))}")
    return f"next retraining {' or '.join(told)}" if told else None


def _instant(trigger: Trigger, champion_since: float | None, now: float) -> float | None:
    if isinstance(trigger, Schedule):
        instant = next(CronSim(trigger.cron, datetime.fromtimestamp(now, UTC)), None)
        return None if instant is None else instant.timestamp()
    if isinstance(trigger, Age) and champion_since is not None:
        return champion_since + seconds(trigger.duration)
    return None


def _at(instant: float, now: float, clock: str) -> str:
    if clock == "wall":
        return f"in {words(instant - now)}" if instant > now else "now"
    return f"at {datetime.fromtimestamp(instant, UTC):%d %b %H:%M} event time"
