"""The dashboard of models and learning (pure): quality, releases, runs, updates, drift."""

from __future__ import annotations

from tailrace.monitoring.telemetry.panels import Panel, PanelRow, mean, quantile, quantiles, rate

_STALENESS = (
    'max(tailrace_last_event_timestamp_seconds{component="worker"}) '
    '- max(tailrace_model_trained_through_timestamp_seconds{role="champion"})'
)

ROWS = (
    PanelRow(
        "Quality of what was served, by the newest 2,000 labels",
        (
            Panel(
                "Log-loss", "Mean log-loss of the served scores, in nats; lower is better.", "none",
                (("avg by (role) (tailrace_quality_log_loss)", "{{role}}"),),
            ),
            Panel(
                "Accuracy", "Share of the labels that the served scores had right.", "percentunit",
                (("avg by (role) (tailrace_quality_accuracy_ratio)", "{{role}}"),),
            ),
            Panel(
                "Calibration error", "How far stated probabilities lie from what happened; 0 is best.", "percentunit",
                (("avg by (role) (tailrace_quality_calibration_error_ratio)", "{{role}}"),),
            ),
        ),
    ),
    PanelRow(
        "Releases",
        (
            Panel(
                "Predictions by release", "Predictions a second of each release: one takes over from the other.", "ops",
                (
                    (
                        'sum by (release) (rate(tailrace_events_total{outcome="predicted"}[$__rate_interval]) '
                        '* on (instance) group_left (release) tailrace_model_info{role="champion"})',
                        "{{release}}",
                    ),
                ),
            ),
            Panel(
                "Staleness", "How much older than the newest event scored the newest event is that the release knows.",
                "s", ((_STALENESS, "behind"),), least=None,
            ),
            Panel(
                "Swap pause", "How long a swap held up scoring.", "s", quantiles("tailrace_swap_pause_seconds"),
            ),
            Panel(
                "Swaps and rollbacks", "Releases that began to serve; rollbacks: older ones than before.", "ops",
                (
                    (rate("tailrace_swap_pause_seconds_count"), "swaps"),
                    (rate("tailrace_rollbacks_total"), "rollbacks"),
                ),
            ),
            Panel(
                "Loading", "Fetching, verifying and warming up a release in the background.", "s",
                ((quantile(0.99, "tailrace_release_load_seconds"), "p99"),),
            ),
            Panel(
                "Refusals", "Releases that were not served, by reason.", "ops",
                ((rate("tailrace_refusals_total", "reason"), "{{reason}}"),),
            ),
        ),
    ),
    PanelRow(
        "Online updates",
        (
            Panel(
                "Updates", "Online updates by what came of them.", "ops",
                ((rate("tailrace_updates_total", "outcome"), "{{outcome}}"),), width=6,
            ),
            Panel(
                "Duration", "From an update's labels' being there to its release.", "s",
                quantiles("tailrace_update_seconds"), width=6,
            ),
            Panel(
                "Labels learned", "Labels that published updates have learned.", "ops",
                ((rate("tailrace_updated_labels_total"), "labels"),), width=6,
            ),
            Panel(
                "Loss", "Mean training loss of an update's labels before they were learned.", "none",
                (("avg(tailrace_update_loss)", "loss"),), width=6,
            ),
        ),
    ),
    PanelRow(
        "Runs",
        (
            Panel(
                "Next run", "Time until a run is due by schedule or age; below 0 it is overdue.", "s",
                (("min(tailrace_retrain_next_timestamp_seconds > 0) - time()", "until"),), "stat", 4, None,
            ),
            Panel(
                "Last success", "Time since a run published a release.", "s",
                (("time() - max(tailrace_retrain_last_success_timestamp_seconds > 0)", "since"),), "stat", 4,
            ),
            Panel(
                "Waiting labels", "Labels that came after those the last run considered.", "short",
                (("sum(tailrace_retrain_waiting_labels)", "labels"),), "stat", 4,
            ),
            Panel(
                "Progress", "How much of the newest run is done.", "percentunit",
                (("max(tailrace_retrain_progress_ratio)", "done"),), "stat", 4,
            ),
            Panel(
                "Rows", "Examples that runs have trained on, since the retrainer was started.", "short",
                (("sum(tailrace_retrain_rows_total)", "rows"),), "stat", 4,
            ),
            Panel(
                "Loss of the newest run", "Mean training loss of its newest steps.", "none",
                (("avg(tailrace_retrain_loss)", "loss"),), "stat", 4,
            ),
            Panel(
                "Runs", "Runs by trigger and outcome, since the retrainer was started.", "short",
                (("sum by (trigger, outcome) (tailrace_retrain_runs_total)", "{{trigger}}: {{outcome}}"),),
            ),
            Panel("Duration", "From a run's trigger to its report.", "s", quantiles("tailrace_retrain_seconds")),
            Panel(
                "Stages of a run", "The mean of each: selecting, the training loop, the gate, publishing.", "s",
                ((mean("tailrace_retrain_stage_seconds", "stage"), "{{stage}}"),),
            ),
        ),
    ),
    PanelRow(
        "Drift",
        (
            Panel(
                "Nearness to drift", "Score of each feature and of the loss divided by its threshold; drift above 1.",
                "percentunit",
                (
                    ("max by (feature) (tailrace_drift_score / (tailrace_drift_threshold > 0))", "{{feature}}"),
                    ("max(tailrace_drift_loss_score / (tailrace_drift_loss_threshold > 0))", "loss (not a feature)"),
                ),
                width=12, least=None,
            ),
            Panel(
                "Detections", "Times that drift was signalled, by kind, since the retrainer was started.", "short",
                (("sum by (kind) (tailrace_drift_detections_total)", "{{kind}}"),), width=12,
            ),
        ),
    ),
)  # fmt: skip
