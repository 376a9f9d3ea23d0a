"""Drift monitor (deterministic): signals that the live loss has risen, or that inputs are unlike any seen before."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailrace.declaration.facts import Change, DriftSignals
from tailrace.inference.models.encoding import Inputs
from tailrace.retrain.control.drift_level import Level, Losses
from tailrace.retrain.control.input_drift import NovelInputs
from tailrace.retrain.control.loss_drift import RisingLoss


class DriftMonitor:
    """Monitors the losses and inputs of one pipeline.

    `false_alarms`: largest probability of a false alarm at one check of the loss. `effect`: see `loss_drift`. `shift`:
    see `input_drift`; None: inputs are not monitored. `names`: names of the number columns, then of the category
    columns.
    """

    def __init__(
        self, *, false_alarms: float, effect: float, shift: float | None, names: Sequence[str] | None = None
    ) -> None:
        self._loss = RisingLoss(false_alarms, effect)
        self._inputs = NovelInputs(false_alarms, shift, names) if shift is not None else None
        self._rise: Change | None = None
        self._rise_start: int | None = None  # label count at the start of the last rise
        self._shifts: dict[str, tuple[Change, int]] = {}  # with the label count at the time
        self._labels = 0
        self._learned = 0
        self.detections = {"loss": 0, "inputs": 0}
        """Number of drifts by kind since this monitor was created."""

    def update(self, losses: Losses, inputs: Inputs | None = None) -> None:
        """Add the losses of newly labelled examples, shape [n], and their inputs, and test both for drift.

        Call it in the order in which the labels arrived: drift is a change along this order. `signals` and `detections`
        show the drift that was detected.
        """
        before, self._labels = self._labels, self._labels + len(losses)
        rise = self._loss.update(losses)
        if rise is not None:
            self._rise, self._rise_start = rise, self._labels - rise.labels
            self._learned = 0
            self.detections["loss"] += 1
        if self._inputs is not None and inputs is not None:
            for change, rows in self._inputs.update(inputs):
                self.detections["inputs"] += 1
                self._shifts.setdefault(change.what, (change, before + rows))

    @property
    def wants_inputs(self) -> bool:
        """True if inputs are monitored."""
        return self._inputs is not None

    def remember(self, inputs: Inputs) -> None:
        """Add inputs of earlier examples, oldest first, to the reference with which new inputs are compared."""
        if self._inputs is not None:
            self._inputs.update(inputs)

    @property
    def levels(self) -> dict[str, Level]:
        """Stability index of each feature in the last complete window; empty where inputs are not monitored."""
        return self._inputs.levels if self._inputs is not None else {}

    @property
    def loss_level(self) -> Level | None:
        """Rise of the loss at the clearest cut of the last check; None before the first check."""
        return self._loss.level

    @property
    def signals(self) -> DriftSignals:
        """Drift that was detected since the last call of `considered`, as facts for triggers."""
        changed = None if self._rise_start is None else self._labels - self._rise_start
        rise = msgspec.structs.replace(self._rise, labels=changed) if self._rise is not None else None
        shifts = (
            msgspec.structs.replace(change, labels=change.labels + self._labels - then)
            for change, then in self._shifts.values()
        )
        return DriftSignals(rise, tuple(shifts), changed, self._learned)

    def considered(self) -> None:
        """Clear the signals, because a run has started in response to them.

        The reference losses and inputs stay: the gate passes no worse champion, and a better one sets a stricter
        reference by itself.
        """
        self._rise = None
        self._shifts.clear()
        self._learned = 0 if self._rise_start is None else self._labels - self._rise_start
