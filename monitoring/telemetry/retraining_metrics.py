"""The metrics of a retrainer: runs and updates, the quality of what was served, drift. See `telemetry.metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tailrace.monitoring.telemetry.definitions import WAITS, MetricGroup

_RUNS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
RUN_STAGES = ("select", "train", "gate", "publish")
TRIGGERS = ("schedule", "labels", "age", "drift", "below", "worthwhile", "other")
RUN_OUTCOMES = ("published", "refused", "failed")
UPDATE_OUTCOMES = ("published", "refused", "failed", "overtaken")


class RetrainingMetrics(MetricGroup):
    """Examples become releases."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.runs = self._counter(
            "tailrace_retrain_runs_total",
            "Retraining runs by what started them and what came of them.",
            trigger=TRIGGERS,
            outcome=RUN_OUTCOMES,
        )
        self.seconds = self._histogram("tailrace_retrain_seconds", "A run, from its trigger to its report.", _RUNS)
        self.stage_seconds = self._histogram(
            "tailrace_retrain_stage_seconds",
            "What each stage of a run takes: select, train (the loop alone), gate, publish.",
            _RUNS,
            stage=RUN_STAGES,
        )
        self.rows = self._counter("tailrace_retrain_rows_total", "Examples that runs have trained on.")
        self.progress = self._gauge("tailrace_retrain_progress_ratio", "How much of the newest run is done, 0 to 1.")
        self.loss = self._gauge("tailrace_retrain_loss", "The mean training loss of the newest steps of a run.")
        self.last_success = self._gauge(
            "tailrace_retrain_last_success_timestamp_seconds",
            "When the last run that published a release ended, in unix seconds.",
        )
        self.next_run = self._gauge(
            "tailrace_retrain_next_timestamp_seconds",
            "When the next run is due by schedule or age, in unix seconds; 0: no such trigger, or not known yet.",
        )
        self.waiting_labels = self._gauge(
            "tailrace_retrain_waiting_labels", "Labels that came after those the last run considered."
        )
        self.examples = self._counter("tailrace_examples_total", "Labelled examples that the retrainer has read.")
        self.updates = self._counter(
            "tailrace_updates_total",
            "Online updates by what came of them: published, refused, failed, overtaken.",
            outcome=UPDATE_OUTCOMES,
        )
        self.updated_labels = self._counter(
            "tailrace_updated_labels_total", "Labels that published online updates have learned."
        )
        self.update_seconds = self._histogram(
            "tailrace_update_seconds", "An online update, from its labels' being there to its release.", WAITS
        )
        self.update_loss = self._gauge(
            "tailrace_update_loss", "The mean training loss of the newest update's labels before they were learned."
        )


class QualityMetrics(MetricGroup):
    """Served scores against the labels that came back, over the newest of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.examples = self._gauge(
            "tailrace_quality_examples", "How many labels the figures of quality are of.", "role"
        )
        self.log_loss = self._gauge("tailrace_quality_log_loss", "Mean log-loss of what was served, in nats.", "role")
        self.accuracy = self._gauge(
            "tailrace_quality_accuracy_ratio", "Share of the labels that what was served had right, 0 to 1.", "role"
        )
        self.calibration_error = self._gauge(
            "tailrace_quality_calibration_error_ratio",
            "Expected calibration error: how far probabilities lie from what happened, over ten bins, 0 to 1.",
            "role",
        )
        self.squared_error = self._gauge(
            "tailrace_quality_squared_error", "Mean squared error of the values that were served.", "role"
        )


class DriftMetrics(MetricGroup):
    """How unlike its past the world is."""

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
            "tailrace_drift_detections_total", "Times that drift was signalled, by kind.", kind=("loss", "inputs")
        )
