"""Observer of a retrainer: it turns reports into metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import Gauge

from tailrace.monitoring.telemetry.metrics import Metrics
from tailrace.monitoring.telemetry.observers import count_malformed
from tailrace.retrain.control.drift_level import Level
from tailrace.retrain.control.observer import RetrainerObserver
from tailrace.retrain.control.reports import RunReport, UpdateReport
from tailrace.streams.log.codec import Malformed

_SHOWN = 20  # features with a series of their own: a wide event must not make a thousand series
_REST = "(other)"  # parentheses: no feature can have this name


class RetrainingObserver(RetrainerObserver):
    """Exports the reports of a retrainer as metrics. `ranks`: processes that train together, one GPU each on CUDA."""

    def __init__(self, metrics: Metrics | None, ranks: int = 1) -> None:
        metrics = metrics or Metrics()
        self._malformed, self._retrain = count_malformed(metrics), metrics.retrain
        self._quality, self._drift = metrics.quality, metrics.drift
        self._ranks = ranks
        self._detected: Mapping[str, int] = {}
        self._shown: set[str] = set()
        self.gpu_seconds = 0.0
        """Seconds of training, summed over GPUs."""

    def taken(self, examples: int, malformed: Sequence[Malformed]) -> None:
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
        self._retrain.examples.inc(examples)
        self._malformed(malformed)

    def measured(self, figures: Mapping[str, float]) -> None:
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
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
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
        self._retrain.waiting_labels.set(waiting)
        self._retrain.next_run.set(next_run or 0)

    def drifted(self, levels: Mapping[str, Level], loss_level: Level | None, detections: Mapping[str, int]) -> None:
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
        shown = foremost(levels)
        for gauge, part in ((self._drift.score, 0), (self._drift.threshold, 1)):
            _set_gauge(gauge, {feature: level[part] for feature, level in shown.items()}, self._shown - shown.keys())
        self._shown = set(shown)
        if loss_level is not None:
            self._drift.loss_score.set(loss_level.score)
            self._drift.loss_threshold.set(loss_level.threshold)
        for kind, count in detections.items():
            self._drift.detections.labels(kind).inc(count - self._detected.get(kind, 0))
        self._detected = dict(detections)

    def progressed(self, step: int, steps: int, loss: float) -> None:
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
        self._retrain.progress.set(step / steps)
        self._retrain.loss.set(loss)

    def ran(self, report: RunReport, stages: Mapping[str, float]) -> None:
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
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
        """See `tailrace.retrain.control.observer.RetrainerObserver`."""
        self._retrain.updates.labels(report.outcome).inc()
        self._retrain.update_seconds.observe(report.total_s)
        if report.outcome == "published":
            self._retrain.updated_labels.inc(report.labels)
            self._retrain.update_loss.set(report.loss)


def foremost(levels: Mapping[str, Level]) -> dict[str, Level]:
    """Select the `_SHOWN` features nearest to their thresholds, and the nearest of the remaining ones as `_REST`."""
    features = sorted(levels, key=lambda feature: _nearness(levels[feature]), reverse=True)
    selected = {feature: levels[feature] for feature in features[:_SHOWN]}
    if len(features) > _SHOWN:
        selected[_REST] = levels[features[_SHOWN]]
    return selected


def _nearness(level: Level) -> float:
    return level.score / level.threshold if level.threshold > 0 else level.score


def _set_gauge(gauge: Gauge, values: Mapping[str, float], removed: set[str]) -> None:
    for feature, value in values.items():
        gauge.labels(feature).set(value)
    for feature in removed:
        gauge.remove(feature)
