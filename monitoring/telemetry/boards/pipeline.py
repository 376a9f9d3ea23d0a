"""The dashboard of the pipeline (pure): events, latency, lag, dead letters, the join."""

from __future__ import annotations

from tailrace.monitoring.telemetry.panels import Panel, PanelRow, mean, quantile, quantiles, rate

ROWS = (
    PanelRow(
        "Now",
        (
            Panel(
                "Predictions per second", "Events that were scored and became part of a commit.", "ops",
                ((rate("tailrace_events_total", match='outcome="predicted"'), "predictions"),), "stat", 5,
            ),
            Panel(
                "Latency, p99", "From the event time to the commit; 99 % of events take less.", "s",
                ((quantile(0.99, "tailrace_end_to_end_seconds"), "p99"),), "stat", 5,
            ),
            Panel(
                "Records behind", "Records that worker, joiner and retrainer have not committed yet.", "short",
                (("sum(tailrace_lag_records)", "records"),), "stat", 5,
            ),
            Panel(
                "Dead letters", "Records that could not be used since the roles started.", "short",
                (("sum(tailrace_dead_letters_total)", "records"),), "stat", 4,
            ),
            Panel(
                "Release", "Release that the workers serve; two during a swap.", "none",
                (('max by (release) (tailrace_model_info{role="champion"})', "{{release}}"),), "stat", 5, named=True,
            ),
        ),
    ),
    PanelRow(
        "Scoring",
        (
            Panel(
                "Events", "Events by outcome.", "ops",
                ((rate("tailrace_events_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Latency from event to commit", "In a sample of each batch. Replayed events bring their own age.", "s",
                quantiles("tailrace_end_to_end_seconds"),
            ),
            Panel(
                "Stages of a batch", "Mean duration of each stage of scoring, and of a commit.", "s",
                ((mean("tailrace_stage_seconds", "stage"), "{{stage}}"),),
            ),
            Panel(
                "Latency from read to commit", "The worker's share of the latency, without event times.", "s",
                quantiles("tailrace_prediction_seconds"), width=6,
            ),
            Panel("Batch size", "Records read in one batch.", "short", quantiles("tailrace_batch_records"), width=6),
            Panel(
                "Waiting for a commit", "Records read whose results are not yet part of a commit.", "short",
                (("max by (component) (tailrace_queue_records)", "{{component}}"),), width=6,
            ),
            Panel(
                "Commits", "Pause of a loop for a commit; 99 % of commits take less.", "s",
                ((quantile(0.99, "tailrace_commit_seconds", "component"), "{{component}}"),), width=6,
            ),
        ),
    ),
    PanelRow(
        "Streams",
        (
            Panel(
                "Lag in records", "Records after the committed position, by topic.", "short",
                (("sum by (topic) (tailrace_lag_records)", "{{topic}}"),),
            ),
            Panel(
                "Lag in time", "Upper bound of the age of the oldest such record, by topic.", "s",
                (("max by (topic) (tailrace_lag_seconds)", "{{topic}}"),),
            ),
            Panel(
                "Event time", "Distance of the join's watermark from the newest scored event.", "s",
                (
                    (
                        'max(tailrace_last_event_timestamp_seconds{component="worker"}) '
                        "- min(tailrace_watermark_timestamp_seconds > 0)",
                        "watermark",
                    ),
                ),
                least=None,
            ),
            Panel(
                "Dead letters", "Records that could not be used, by reason.", "ops",
                ((rate("tailrace_dead_letters_total", "reason"), "{{reason}}"),),
            ),
            Panel(
                "Rebalances", "Rebalances by what happened to partitions: assigned, revoked, lost.", "ops",
                ((rate("tailrace_rebalances_total", "kind"), "{{kind}}"),),
            ),
            Panel(
                "Aborts", "Transactions that were aborted and repeated.", "ops",
                ((rate("tailrace_aborts_total", "component"), "{{component}}"),),
            ),
        ),
    ),
    PanelRow(
        "Join",
        (
            Panel(
                "Outcomes", "Predictions and labels by outcome.", "ops",
                ((rate("tailrace_join_outcomes_total", "outcome"), "{{outcome}}"),), width=6,
            ),
            Panel(
                "Label delay", "From the event time to the time of the label that counts.", "s",
                quantiles("tailrace_label_delay_seconds"), width=6,
            ),
            Panel(
                "Held", "Predictions and early labels in the joiner's memory.", "short",
                (("sum(tailrace_join_held_records)", "records"),), width=6,
            ),
            Panel(
                "Held bytes", "Bytes of the predictions in the joiner's memory.", "bytes",
                (("sum(tailrace_join_held_bytes)", "bytes"),), width=6,
            ),
        ),
    ),
)  # fmt: skip
