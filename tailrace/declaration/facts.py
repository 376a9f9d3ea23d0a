"""What triggers may know (pure): plain values, so that a run's facts can stand in its release."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec


class Change(msgspec.Struct, frozen=True):
    """Something that is no longer what it was.

    `what`: "loss", or a feature's name. `before` and `after`: the mean loss; None for a feature. `statistic` passed
    `threshold`: for the loss, the rise against the least rise that chance and effect size allow, in units of the loss;
    for a feature, the population stability index. `labels`: how many have come since the change began.
    """

    what: str
    statistic: float
    threshold: float
    labels: int
    before: float | None = None
    after: float | None = None


class DriftSignals(msgspec.Struct, frozen=True):
    """What has drifted since the last run was begun; a signal stays until the next is.

    `changed`: labels since the loss last began to rise, also after a run has been begun for it; None: it never did.
    `learned`: how many of those were there when the last run was begun.
    """

    loss: Change | None = None
    features: tuple[Change, ...] = ()
    changed: int | None = None
    learned: int = 0


class Live(msgspec.Struct, frozen=True):
    """What the served scores were worth: the mean loss of the newest `labels` since the last run (accuracy: the error
    rate), its standard error, and what the champion had when it was published, with its standard error.

    `over` says for whom this was measured: the newest so many labels; 0: all since the last run.
    """

    metric: str
    over: int
    labels: int
    mean: float
    error: float
    reference: float | None = None
    reference_error: float = 0.0

    def worse(self, certainty: float) -> float:
        """By how much the loss exceeds the reference, less `certainty` standard errors of the difference; never below
        0."""
        if self.reference is None:
            return 0.0
        noise = certainty * math.hypot(self.error, self.reference_error)
        return max(0.0, self.mean - self.reference - noise)


class Facts(NamedTuple):
    """What triggers may know. Times are unix seconds on the clock that the plan names: the wall's or the labels'.

    What is not known is None, or empty: a trigger that needs it is not due.
    """

    now: float
    since: float
    """When the last run was started; before the first run, when counting began."""
    labels: int
    """Labelled examples that came after those the last run considered."""
    created: float | None = None
    """When the champion was published."""
    drift: DriftSignals | None = None
    live: tuple[Live, ...] = ()
    run_s: float | None = None
    """What the last run took, in seconds from its trigger to its end."""
    events: float | None = None
    """Events scored since the last run was started, labelled or not."""


class Due(NamedTuple):
    """A trigger's answer that a run is due. `kind`: the trigger's, such as "schedule"; `reason`: for people."""

    kind: str
    reason: str
