"""The dashboard of the pipeline (pure): events, latency, lag, dead letters, the join."""

from __future__ import annotations

from tailrace.monitoring.telemetry.panels import Panel, PanelRow, mean, quantile, quantiles, rate

ROWS = (
    PanelRow(
        "Now",
        (
            Panel(
                "Predictions a second", "Events that were scored and handed to a commit.", "ops",
                ((rate("tailrace_events_total", match='outcome="predicted"'), "predictions"),), "stat", 5,
            ),
            Panel(
                "Latency, p99", "From an event's time to its commit: 99 of 100 take no longer.", "s",
                ((quantile(0.99, "tailrace_end_to_end_seconds"), "p99"),), "stat", 5,
            ),
            Panel(
                "Records behind", "What the worker, the joiner and the retrainer have not committed yet.", "short",
                (("sum(tailrace_lag_records)", "records"),), "stat", 5,
            ),
            Panel(
                "Dead letters", "Records that could not be used, since the roles were started.", "short",
                (("sum(tailrace_dead_letters_total)", "records"),), "stat", 4,
            ),
            Panel(
                "Release", "The release that the workers serve; several while one follows the other.", "none",
                (('max by (release) (tailrace_model_info{role="champion"})', "{{release}}"),), "stat", 5, named=True,
            ),
        ),
    ),
    PanelRow(
        "Scoring",
        (
            Panel(
                "Events", "Events by what became of them.", "ops",
                ((rate("tailrace_events_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Latency from event to commit", "By a sample of each batch. Replayed events bring their own age.", "s",
                quantiles("tailrace_end_to_end_seconds"),
            ),
            Panel(
                "What a batch's time goes to", "The mean of each stage of scoring, and of a commit.", "s",
                ((mean("tailrace_stage_seconds", "stage"), "{{stage}}"),),
            ),
            Panel(
                "Latency from read to commit", "What the worker itself adds, whatever times events bring.", "s",
                quantiles("tailrace_prediction_seconds"), width=6,
            ),
            Panel("Batch size", "Records read in one batch.", "short", quantiles("tailrace_batch_records"), width=6),
            Panel(
                "Waiting for a commit", "Records read whose results are not handed to a commit yet.", "short",
                (("max by (component) (tailrace_queue_records)", "{{component}}"),), width=6,
            ),
            Panel(
                "Commits", "How long a commit holds up a loop: 99 of 100 take no longer.", "s",
                ((quantile(0.99, "tailrace_commit_seconds", "component"), "{{component}}"),), width=6,
            ),
        ),
    ),
    PanelRow(
        "Streams",
        (
            Panel(
                "Lag in records", "Records behind the committed position, by topic.", "short",
                (("sum by (topic) (tailrace_lag_records)", "{{topic}}"),),
            ),
            Panel(
                "Lag in time", "How long the oldest of them has waited, at most, by topic.", "s",
                (("max by (topic) (tailrace_lag_seconds)", "{{topic}}"),),
            ),
            Panel(
                "Event time", "How far the join's watermark is behind the newest event scored.", "s",
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
                "Rebalances", "Partitions came (assigned) or went (revoked, lost).", "ops",
                ((rate("tailrace_rebalances_total", "kind"), "{{kind}}"),),
            ),
            Panel(
                "Aborts", "Transactions that left nothing behind and were done again.", "ops",
                ((rate("tailrace_aborts_total", "component"), "{{component}}"),),
            ),
        ),
    ),
    PanelRow(
        "Join",
        (
            Panel(
                "Outcomes", "What became of predictions and labels.", "ops",
                ((rate("tailrace_join_outcomes_total", "outcome"), "{{outcome}}"),), width=6,
            ),
            Panel(
                "Label delay", "From an event to the label that won.", "s",
                quantiles("tailrace_label_delay_seconds"), width=6,
            ),
            Panel(
                "Held", "Predictions and early labels that wait in the joiner's memory.", "short",
                (("sum(tailrace_join_held_records)", "records"),), width=6,
            ),
            Panel(
                "Held bytes", "Bytes of the predictions that wait for their label.", "bytes",
                (("sum(tailrace_join_held_bytes)", "bytes"),), width=6,
            ),
        ),
    ),
)  # fmt: skip
