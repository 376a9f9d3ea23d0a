"""Interface through which the retrainer reports its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tailrace.retrain.control.drift_level import Level
from tailrace.retrain.control.reports import RunReport, UpdateReport
from tailrace.streams.log.codec import Malformed


class RetrainerObserver:
    """Receives reports once per batch, run or update, in the retrainer's own threads. The base class ignores them."""

    def taken(self, examples: int, malformed: Sequence[Malformed]) -> None:
        """Report the number of examples in a batch, and its unusable records."""

    def measured(self, figures: Mapping[str, float]) -> None:
        """Report the quality of the served scores over the newest labels: see `retrain.control.quality`."""

    def watched(self, waiting: int, next_run: float | None) -> None:
        """Report the labels that wait for a run, and when time alone makes one due (unix seconds on the wall clock)."""

    def drifted(self, levels: Mapping[str, Level], loss_level: Level | None, detections: Mapping[str, int]) -> None:
        """Report the drift level of each feature and of the loss, and how often drift was signalled, by kind."""

    def progressed(self, step: int, steps: int, loss: float) -> None:
        """Report the progress of a run. `loss`: mean training loss since the last report."""

    def ran(self, report: RunReport, stages: Mapping[str, float]) -> None:
        """Report a run that has ended, with the seconds of its stages: select, train (the loop), gate, publish."""

    def updated(self, report: UpdateReport) -> None:
        """Report an online update that has ended."""
