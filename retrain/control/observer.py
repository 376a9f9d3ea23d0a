"""What a retrainer tells whoever looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tailrace.retrain.control.drift import Level
from tailrace.retrain.control.reports import RunReport, UpdateReport
from tailrace.streams.log.codec import Malformed


class Observer:
    """Told once a batch, run or update, in the retrainer's own threads; the base does nothing."""

    def taken(self, examples: int, malformed: Sequence[Malformed]) -> None:
        """So many examples were read, and these cannot be used."""

    def measured(self, figures: Mapping[str, float]) -> None:
        """The quality of what was served, over the newest labels: see `tailrace.retrain.control.quality`."""

    def watched(self, waiting: int, next_run: float | None) -> None:
        """So many labels wait for a run; when time alone makes one due (unix seconds on the wall), where it can."""

    def drifted(self, levels: Mapping[str, Level], loss_level: Level | None, detections: Mapping[str, int]) -> None:
        """Report the drift level of each feature and of the loss, and how often drift was signalled, by kind."""

    def progressed(self, step: int, steps: int, loss: float) -> None:
        """A run has come so far; `loss`: the mean training loss since it was told last."""

    def ran(self, report: RunReport, stages: Mapping[str, float]) -> None:
        """A run has ended; seconds of its stages: select, train (the loop alone), gate, publish, as far as it came."""

    def updated(self, report: UpdateReport) -> None:
        """An online update has ended."""
