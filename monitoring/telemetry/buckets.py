"""Histogram buckets: upper bounds in ascending order, by the quantity that a histogram measures."""

from __future__ import annotations

LOOP_SECONDS = (1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Steps of a role's loop in seconds: batches, stages of scoring, commits, swaps; a microsecond to a second."""

BATCH_RECORDS = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384)
"""Number of records in one batch."""

WAITING_SECONDS = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 3600.0, 86_400.0)
"""Waiting times in seconds: for a prediction, a release or an update; a millisecond to a day."""

LABEL_DELAY_SECONDS = (
    0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0
)  # fmt: skip
"""Delay of a label after its event in seconds, up to 30 days."""

RUN_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Duration of a retraining run or of one of its stages in seconds, up to 4 hours."""
