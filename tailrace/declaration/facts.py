"""Facts that triggers decide on (pure): plain values, which are also stored in the release that a run makes."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from tailrace.declaration.documentation import with_field_docs


@with_field_docs
class Change(msgspec.Struct, frozen=True):
    """A drift that was detected, in the loss or in one feature."""

    what: str
    """"loss", or the name of the feature."""
    statistic: float
    """For the loss, its rise, in units of the loss; for a feature, its population stability index."""
    threshold: float
    """The value that the statistic exceeded. For the loss, it follows from the effect size and the noise."""
    labels: int
    """Labels that arrived since the change began."""
    before: float | None = None
    """Mean loss before the change; None for a feature."""
    after: float | None = None
    """Mean loss after the change; None for a feature."""


@with_field_docs
class DriftSignals(msgspec.Struct, frozen=True):
    """Drift that was detected since the last run started. A signal stays until the next run starts."""

    loss: Change | None = None
    """The rise of the loss; None: it did not rise."""
    features: tuple[Change, ...] = ()
    """The features whose distribution changed."""
    changed: int | None = None
    """Labels since the loss last began to rise, also after a run was started for it; None: it never rose."""
    learned: int = 0
    """How many of these labels existed when the last run started."""


@with_field_docs
class Live(msgspec.Struct, frozen=True):
    """Loss of the served scores since the last run, beside the loss that the champion had when it was published.

    All values are losses: for accuracy, the error rate.
    """

    metric: str
    """Name of the metric."""
    over: int
    """Size of the window that was measured, in labels: the newest `over`; 0: all since the last run."""
    labels: int
    """Labels in the window."""
    mean: float
    """Mean loss of the window."""
    error: float
    """Standard error of the mean."""
    reference: float | None = None
    """Mean loss of the champion at the gate; None: not measured."""
    reference_error: float = 0.0
    """Standard error of the reference."""

    def worse(self, certainty: float) -> float:
        """Excess of the loss over the reference, less `certainty` standard errors of the difference; at least 0."""
        if self.reference is None:
            return 0.0
        noise = certainty * math.hypot(self.error, self.reference_error)
        return max(0.0, self.mean - self.reference - noise)


class Facts(NamedTuple):
    """Input of every trigger. Times are unix seconds on the clock that `Training.clock` names (wall or event time).

    Unknown facts are None, or empty; a trigger that needs an unknown fact does not start a run.
    """

    now: float
    since: float
    """Time at which the last run started; before the first run, the time at which counting began."""
    labels: int
    """Labelled examples since those that the last run considered."""
    created: float | None = None
    """Time at which the champion was published."""
    drift: DriftSignals | None = None
    live: tuple[Live, ...] = ()
    run_s: float | None = None
    """Duration of the last run, in seconds from its trigger to its end."""
    events: float | None = None
    """Events scored since the last run started, labelled or not."""


class Due(NamedTuple):
    """Reason for a run. `kind`: kind of the trigger that is due, such as "schedule"; `reason`: text for people."""

    kind: str
    reason: str
