"""Metrics of a retrainer, from what it reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import Gauge

from tailrace.monitoring.telemetry.metrics import Metrics
from tailrace.monitoring.telemetry.observers import count_malformed
from tailrace.retrain.control.observer import Observer
from tailrace.retrain.control.reports import RunReport, UpdateReport
from tailrace.streams.log.codec import Malformed

_SHOWN = 20  # features by name
_OTHER = "other"


class RetrainingObserver(Observer):
    """What a retrainer reports. `ranks`: how many GPUs, where there are any, train together."""

    def __init__(self, metrics: Metrics | None, ranks: int = 1) -> None:
        metrics = metrics or Metrics()
        self._malformed, self._retrain = count_malformed(metrics), metrics.retrain
        self._quality, self._drift = metrics.quality, metrics.drift
        self._ranks = ranks
        self._detected: Mapping[str, int] = {}
        self._shown: set[str] = set()
        self.gpu_seconds = 0.0
        """Seconds that GPUs have trained."""

    def taken(self, examples: int, malformed: Sequence[Malformed]) -> None:
        """See `Observer`."""
        self._retrain.examples.inc(examples)
        self._malformed(malformed)

    def measured(self, figures: Mapping[str, float]) -> None:
        """See `Observer`."""
        quality = self._quality
        gauges = {
            "examples": quality.examples,
            "log_loss": quality.log_loss,
            "accuracy": quality.accuracy,
            "calibration_error": quality.calibration_error,
            "squared_error": quality.squared_error,
        }
        for name, value in figures.items():
            gauges[name].labels("champion").set(value)

    def watched(self, waiting: int, next_run: float | None) -> None:
        """See `Observer`."""
        self._retrain.waiting_labels.set(waiting)
        self._retrain.next_run.set(next_run or 0)

    def drifted(self, levels: Mapping[str, tuple[float, float]], detections: Mapping[str, int]) -> None:
        """See `Observer`."""
        shown = foremost(levels)
        for gauge, at in ((self._drift.score, 0), (self._drift.threshold, 1)):
            _show(gauge, {feature: level[at] for feature, level in shown.items()}, gone=self._shown - shown.keys())
        self._shown = set(shown)
        for kind, count in detections.items():
            self._drift.detections.labels(kind).inc(count - self._detected.get(kind, 0))
        self._detected = dict(detections)

    def progressed(self, step: int, steps: int, loss: float) -> None:
        """See `Observer`."""
        self._retrain.progress.set(step / steps)
        self._retrain.loss.set(loss)

    def ran(self, report: RunReport, stages: Mapping[str, float]) -> None:
        """See `Observer`."""
        retrain = self._retrain
        retrain.runs.labels(report.trigger, report.outcome).inc()
        retrain.seconds.observe(report.total_s)
        retrain.rows.inc(report.examples)
        for stage, seconds in stages.items():
            retrain.stage_seconds.labels(stage).observe(seconds)
        if report.device.startswith("cuda"):
            self.gpu_seconds += report.seconds * self._ranks
        if report.outcome == "published":
            retrain.last_success.set(report.at)

    def updated(self, report: UpdateReport) -> None:
        """See `Observer`."""
        self._retrain.updates.labels(report.outcome).inc()
        self._retrain.update_seconds.observe(report.total_s)
        if report.outcome == "published":
            self._retrain.updated_labels.inc(report.labels)
            self._retrain.update_loss.set(report.loss)


def foremost(levels: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The loss, the features nearest their thresholds, and of the others the nearest one, as `other`."""
    ranked = sorted(levels, key=lambda feature: _nearness(levels[feature]), reverse=True)
    features = [feature for feature in ranked if feature != "loss"]
    shown = {feature: levels[feature] for feature in features[:_SHOWN]}
    if len(features) > _SHOWN:
        shown[_OTHER] = levels[features[_SHOWN]]
    return shown | ({"loss": levels["loss"]} if "loss" in levels else {})


def _nearness(level: tuple[float, float]) -> float:
    score, threshold = level
    return score / threshold if threshold > 0 else score


def _show(gauge: Gauge, values: Mapping[str, float], gone: set[str]) -> None:
    for feature, value in values.items():
        gauge.labels(feature).set(value)
    for feature in gone:
        gauge.remove(feature)
