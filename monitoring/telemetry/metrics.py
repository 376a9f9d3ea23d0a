"""All metrics of all roles: name, kind, labels and meaning. Those of the retrainer are in `retraining_metrics`.

Units are base units, and the registry is injected. Metrics are updated once for each batch, commit, swap or run, never
for each event. The `_count` of a histogram counts its events, so there is no counter beside it. The release is not a
label of frequent counters; `tailrace_model_info` names the serving release and can be joined.

docs/metrics.md is generated from this file: `python -m tailrace.monitoring.telemetry.generate`.
"""

from __future__ import annotations

from functools import cached_property

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from tailrace.inference.releases.manifest import REASONS
from tailrace.monitoring.telemetry.buckets import BATCH_RECORDS, LABEL_DELAY_SECONDS, LOOP_SECONDS, WAITING_SECONDS
from tailrace.monitoring.telemetry.definitions import MetricDefinition, MetricGroup
from tailrace.monitoring.telemetry.health import Health
from tailrace.monitoring.telemetry.retraining_metrics import DriftMetrics, QualityMetrics, RetrainingMetrics
from tailrace.streams.join.state import Counts
from tailrace.streams.log.codec import DEAD_LETTER_REASONS

SCORING_STAGES = ("decode", "features", "predict", "encode", "commit")

# Measured at each scrape: see tailrace.monitoring.telemetry.lag and tailrace.monitoring.telemetry.cost.
LAG_RECORDS = MetricDefinition(
    "tailrace_lag_records",
    "gauge",
    "Records after the committed position of the consumer group.",
    ("topic", "partition"),
)
LAG_SECONDS = MetricDefinition(
    "tailrace_lag_seconds",
    "gauge",
    "Upper bound of the age of the oldest record after the committed position; 0 without such a record.",
    ("topic", "partition"),
)
COMPUTE_SECONDS = MetricDefinition(
    "tailrace_compute_seconds_total",
    "counter",
    "Processor seconds of this role and its child processes (cpu), and seconds of training on GPUs (gpu).",
    ("phase", "device"),
)
ENERGY_JOULES = MetricDefinition(
    "tailrace_energy_joules_total",
    "counter",
    "Energy of this role by source: rapl and nvml are counters, estimate is CPU time multiplied by watts.",
    ("phase", "source"),
)
COST = MetricDefinition(
    "tailrace_cost_total", "counter", "Cost of energy and cores at the configured prices.", ("phase", "currency")
)
HARDWARE_INFO = MetricDefinition(
    "tailrace_hardware_info",
    "gauge",
    "Machine that does the work of a phase; always 1.",
    ("phase", "machine", "processor", "cores", "gpu"),
)
COLLECTED = (LAG_RECORDS, LAG_SECONDS, COMPUTE_SECONDS, ENERGY_JOULES, COST, HARDWARE_INFO)


class Metrics:
    """Metrics and health of one process, in a new registry unless one is given.

    A group is created at its first use, so that a role serves the metrics of its own work only.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series, unused
        self.registry = registry = registry or CollectorRegistry()
        self.health = Health()
        ProcessCollector(registry=registry)

    @cached_property
    def stream(self) -> StreamMetrics:
        """Metrics of the loop of a role: reads, writes, commits."""
        return StreamMetrics(self.registry)

    @cached_property
    def inference(self) -> ScoringMetrics:
        """Metrics of a worker's scoring."""
        return ScoringMetrics(self.registry)

    @cached_property
    def release(self) -> ReleaseMetrics:
        """Metrics of the releases that a worker serves."""
        return ReleaseMetrics(self.registry)

    @cached_property
    def join(self) -> JoinMetrics:
        """Metrics of a joiner."""
        return JoinMetrics(self.registry)

    @cached_property
    def retrain(self) -> RetrainingMetrics:
        """Metrics of a retrainer's runs and online updates."""
        return RetrainingMetrics(self.registry)

    @cached_property
    def quality(self) -> QualityMetrics:
        """Metrics of the quality of served predictions, by their labels."""
        return QualityMetrics(self.registry)

    @cached_property
    def drift(self) -> DriftMetrics:
        """Metrics of a retrainer with a Drift trigger."""
        return DriftMetrics(self.registry)

    def groups(self) -> dict[str, MetricGroup]:
        """All groups, by their headings in docs/metrics.md. Creates them."""
        return {
            "Every role": self.stream,
            "Worker: scoring": self.inference,
            "Worker: releases": self.release,
            "Joiner": self.join,
            "Retrainer: runs and updates": self.retrain,
            "Retrainer: quality of served predictions": self.quality,
            "Retrainer: drift": self.drift,
        }


class StreamMetrics(MetricGroup):
    """Metrics of reading, writing and committing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.batch_records = self._histogram("tailrace_batch_records", "Records read in one batch.", BATCH_RECORDS)
        self.batch_seconds = self._histogram(
            "tailrace_batch_seconds", "From reading a batch to handing its results to the writer.", LOOP_SECONDS
        )
        self.commit_seconds = self._histogram(
            "tailrace_commit_seconds", "Pause of the loop for a commit.", LOOP_SECONDS
        )
        self.queue_records = self._gauge(
            "tailrace_queue_records", "Records read whose results are not yet part of a commit."
        )
        self.rebalances = self._counter(
            "tailrace_rebalances_total",
            "Rebalances by what happened to partitions: assigned, revoked, lost.",
            kind=("assigned", "revoked", "lost"),
        )
        self.aborts = self._counter("tailrace_aborts_total", "Transactions that were aborted and repeated.")
        self.dead_letters = self._counter(
            "tailrace_dead_letters_total",
            "Records that could not be used, by reason. They are dead letters; examples stay in their topic.",
            reason=DEAD_LETTER_REASONS,
        )
        self.last_event = self._gauge(
            "tailrace_last_event_timestamp_seconds",
            "Newest event time that this role has seen in a sample of each batch, in unix seconds.",
        )


class ScoringMetrics(MetricGroup):
    """Metrics of scoring events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.events = self._counter(
            "tailrace_events_total",
            "Events by outcome: predicted, dead_letter.",
            outcome=("predicted", "dead_letter"),
        )
        self.stage_seconds = self._histogram(
            "tailrace_stage_seconds",
            "Duration of each stage of scoring for a batch (decode, features, predict, encode), and of a commit.",
            LOOP_SECONDS,
            stage=SCORING_STAGES,
        )
        self.prediction_seconds = self._tally(
            "tailrace_prediction_seconds", "From reading an event to the commit of its prediction.", WAITING_SECONDS
        )
        self.end_to_end_seconds = self._tally(
            "tailrace_end_to_end_seconds",
            "From the event time (or else the record's time) to the commit, in a sample of each batch.",
            WAITING_SECONDS,
        )


class ReleaseMetrics(MetricGroup):
    """Metrics of loading and swapping releases."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.model_info = self._gauge(
            "tailrace_model_info", "Release in each role, such as champion; always 1.", "role", "release"
        )
        self.trained_through = self._gauge(
            "tailrace_model_trained_through_timestamp_seconds",
            "Newest event that the release in each role was trained on, in unix seconds; 0 for the base rate.",
            "role",
        )
        self.swap_pause_seconds = self._histogram(
            "tailrace_swap_pause_seconds", "Pause of scoring for a swap of releases.", LOOP_SECONDS
        )
        self.release_load_seconds = self._histogram(
            "tailrace_release_load_seconds",
            "Time to fetch, verify and warm up a release in the background, of releases that were swapped in.",
            WAITING_SECONDS,
        )
        self.rollbacks = self._counter("tailrace_rollbacks_total", "Swaps to an older release.")
        self.refusals = self._counter(
            "tailrace_refusals_total", "Releases that the worker refused to serve, by reason.", reason=sorted(REASONS)
        )


class JoinMetrics(MetricGroup):
    """Metrics of joining predictions and labels to examples."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.outcomes = self._counter(
            "tailrace_join_outcomes_total",
            "Predictions and labels by outcome: matched, implicit, expired, late, unmatched, duplicate_labels, ...",
            outcome=Counts.__struct_fields__,
        )
        self.label_delay_seconds = self._tally(
            "tailrace_label_delay_seconds",
            "From the event time to the time of the label that counts, of each example.",
            LABEL_DELAY_SECONDS,
        )
        self.held_records = self._gauge("tailrace_join_held_records", "Predictions and early labels held in memory.")
        self.held_bytes = self._gauge("tailrace_join_held_bytes", "Bytes of the predictions held in memory.")
        self.watermark = self._gauge(
            "tailrace_watermark_timestamp_seconds",
            "Watermark: event time up to which label windows have closed in all partitions, in unix seconds.",
        )
