"""The dashboard of models and training (pure): quality, releases, runs, online updates, drift."""

from __future__ import annotations

from tailrace.monitoring.telemetry.panels import Panel, PanelRow, mean, quantile, quantiles, rate

_STALENESS = (
    'max(tailrace_last_event_timestamp_seconds{component="worker"}) '
    '- max(tailrace_model_trained_through_timestamp_seconds{role="champion"})'
)

ROWS = (
    PanelRow(
        "Quality of served predictions over the newest 2,000 labels",
        (
            Panel(
                "Log-loss", "Mean log-loss of the served scores, in nats; lower is better.", "none",
                (("avg by (role) (tailrace_quality_log_loss)", "{{role}}"),),
            ),
            Panel(
                "Accuracy", "Share of the labels that the served scores predicted correctly.", "percentunit",
                (("avg by (role) (tailrace_quality_accuracy_ratio)", "{{role}}"),),
            ),
            Panel(
                "Calibration error", "Distance of probabilities from observed frequencies; 0 is best.", "percentunit",
                (("avg by (role) (tailrace_quality_calibration_error_ratio)", "{{role}}"),),
            ),
        ),
    ),
    PanelRow(
        "Releases",
        (
            Panel(
                "Predictions by release", "Predictions per second, by release.", "ops",
                (
                    (
                        'sum by (release) (rate(tailrace_events_total{outcome="predicted"}[$__rate_interval]) '
                        '* on (instance) group_left (release) tailrace_model_info{role="champion"})',
                        "{{release}}",
                    ),
                ),
            ),
            Panel(
                "Staleness", "Event time from the newest event in training to the newest one scored.",
                "s", ((_STALENESS, "behind"),), least=None,
            ),
            Panel(
                "Swap pause", "Pause of scoring for a swap of releases.", "s", quantiles("tailrace_swap_pause_seconds"),
            ),
            Panel(
                "Swaps and rollbacks", "Releases that began to serve; a rollback is a swap to an older release.", "ops",
                (
                    (rate("tailrace_swap_pause_seconds_count"), "swaps"),
                    (rate("tailrace_rollbacks_total"), "rollbacks"),
                ),
            ),
            Panel(
                "Loading", "Time to fetch, verify and warm up a release in the background.", "s",
                ((quantile(0.99, "tailrace_release_load_seconds"), "p99"),),
            ),
            Panel(
                "Refusals", "Releases that workers refused to serve, by reason.", "ops",
                ((rate("tailrace_refusals_total", "reason"), "{{reason}}"),),
            ),
        ),
    ),
    PanelRow(
        "Online updates",
        (
            Panel(
                "Updates", "Online updates by outcome.", "ops",
                ((rate("tailrace_updates_total", "outcome"), "{{outcome}}"),), width=6,
            ),
            Panel(
                "Duration", "From the arrival of the labels of an update to its release.", "s",
                quantiles("tailrace_update_seconds"), width=6,
            ),
            Panel(
                "Labels learned", "Labels that published updates were trained on.", "ops",
                ((rate("tailrace_updated_labels_total"), "labels"),), width=6,
            ),
            Panel(
                "Loss", "Mean training loss of the labels of an update, before the update.", "none",
                (("avg(tailrace_update_loss)", "loss"),), width=6,
            ),
        ),
    ),
    PanelRow(
        "Runs",
        (
            Panel(
                "Next run", "Time until the next run by schedule or age; overdue below 0.", "s",
                (("min(tailrace_retrain_next_timestamp_seconds > 0) - time()", "until"),), "stat", 4, None,
            ),
            Panel(
                "Last success", "Time since the last run that published a release.", "s",
                (("time() - max(tailrace_retrain_last_success_timestamp_seconds > 0)", "since"),), "stat", 4,
            ),
            Panel(
                "Waiting labels", "Labels that the last run did not consider.", "short",
                (("sum(tailrace_retrain_waiting_labels)", "labels"),), "stat", 4,
            ),
            Panel(
                "Progress", "Progress of the newest run.", "percentunit",
                (("max(tailrace_retrain_progress_ratio)", "done"),), "stat", 4,
            ),
            Panel(
                "Rows", "Examples that runs have trained on since the retrainer started.", "short",
                (("sum(tailrace_retrain_rows_total)", "rows"),), "stat", 4,
            ),
            Panel(
                "Loss of the newest run", "Mean training loss of its newest steps.", "none",
                (("avg(tailrace_retrain_loss)", "loss"),), "stat", 4,
            ),
            Panel(
                "Runs", "Runs by trigger and outcome since the retrainer started.", "short",
                (("sum by (trigger, outcome) (tailrace_retrain_runs_total)", "{{trigger}}: {{outcome}}"),),
            ),
            Panel("Duration", "From a run's trigger to its report.", "s", quantiles("tailrace_retrain_seconds")),
            Panel(
                "Stages of a run", "Mean duration of each stage: select, train (the loop alone), gate, publish.", "s",
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
                "Detections", "Signals of drift by kind since the retrainer started.", "short",
                (("sum by (kind) (tailrace_drift_detections_total)", "{{kind}}"),), width=12,
            ),
        ),
    ),
)  # fmt: skip
