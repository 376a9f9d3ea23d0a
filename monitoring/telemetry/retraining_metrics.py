"""The metrics of a retrainer: runs and updates, the quality of what was served, drift. See `telemetry.metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tailrace.monitoring.telemetry.buckets import RUN_SECONDS, WAITING_SECONDS
from tailrace.monitoring.telemetry.definitions import MetricGroup

RUN_STAGES = ("select", "train", "gate", "publish")
TRIGGERS = ("schedule", "labels", "age", "drift", "below", "worthwhile", "other")
RUN_OUTCOMES = ("published", "refused", "failed")
UPDATE_OUTCOMES = ("published", "refused", "failed", "overtaken")


class RetrainingMetrics(MetricGroup):
    """Metrics of runs and online updates."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.runs = self._counter(
            "tailrace_retrain_runs_total",
            "Retraining runs by trigger and outcome.",
            trigger=TRIGGERS,
            outcome=RUN_OUTCOMES,
        )
        self.seconds = self._histogram(
            "tailrace_retrain_seconds", "Duration of a run, from its trigger to its report.", RUN_SECONDS
        )
        self.stage_seconds = self._histogram(
            "tailrace_retrain_stage_seconds",
            "Duration of each stage of a run: select, train (the loop alone), gate, publish.",
            RUN_SECONDS,
            stage=RUN_STAGES,
        )
        self.rows = self._counter("tailrace_retrain_rows_total", "Examples that runs have trained on.")
        self.progress = self._gauge("tailrace_retrain_progress_ratio", "Progress of the newest run, 0 to 1.")
        self.loss = self._gauge("tailrace_retrain_loss", "Mean training loss of the newest steps of a run.")
        self.last_success = self._gauge(
            "tailrace_retrain_last_success_timestamp_seconds",
            "End of the last run that published a release, in unix seconds.",
        )
        self.next_run = self._gauge(
            "tailrace_retrain_next_timestamp_seconds",
            "Time of the next run by schedule or age, in unix seconds; 0 without such a trigger or before it is known.",
        )
        self.waiting_labels = self._gauge(
            "tailrace_retrain_waiting_labels", "Labels that the last run did not consider."
        )
        self.examples = self._counter("tailrace_examples_total", "Examples that the retrainer has read.")
        self._define_updates()

    def _define_updates(self) -> None:
        self.updates = self._counter(
            "tailrace_updates_total",
            "Online updates by outcome: published, refused, failed, overtaken.",
            outcome=UPDATE_OUTCOMES,
        )
        self.updated_labels = self._counter(
            "tailrace_updated_labels_total", "Labels that published online updates were trained on."
        )
        self.update_seconds = self._histogram(
            "tailrace_update_seconds",
            "Duration of an online update, from the arrival of its labels to its release.",
            WAITING_SECONDS,
        )
        self.update_loss = self._gauge(
            "tailrace_update_loss", "Mean training loss of the labels of the newest update, before the update."
        )


class QualityMetrics(MetricGroup):
    """Metrics of served scores against the newest labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.examples = self._gauge(
            "tailrace_quality_examples", "Number of labels that the quality metrics cover.", "role"
        )
        self.log_loss = self._gauge("tailrace_quality_log_loss", "Mean log-loss of the served scores, in nats.", "role")
        self.accuracy = self._gauge(
            "tailrace_quality_accuracy_ratio",
            "Share of the labels that the served scores predicted correctly, 0 to 1.",
            "role",
        )
        self.calibration_error = self._gauge(
            "tailrace_quality_calibration_error_ratio",
            "Expected calibration error of the served probabilities, over 15 bins, 0 to 1.",
            "role",
        )
        self.squared_error = self._gauge(
            "tailrace_quality_squared_error", "Mean squared error of the served values.", "role"
        )


class DriftMetrics(MetricGroup):
    """Metrics of concept drift and data drift."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.score = self._gauge(
            "tailrace_drift_score",
            "Population stability index of a feature, in nats: the 20 nearest to their thresholds, and the nearest of "
            "the remaining ones as (other).",
            "feature",
        )
        self.threshold = self._gauge(
            "tailrace_drift_threshold", "Score of a feature above which it is signalled as drift.", "feature"
        )
        self.loss_score = self._gauge(
            "tailrace_drift_loss_score", "Rise of the live loss at the clearest change point, in units of the loss."
        )
        self.loss_threshold = self._gauge(
            "tailrace_drift_loss_threshold", "Rise of the live loss above which it is signalled as drift."
        )
        self.detections = self._counter(
            "tailrace_drift_detections_total", "Signals of drift by kind: loss, inputs.", kind=("loss", "inputs")
        )
