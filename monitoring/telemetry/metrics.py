"""Every metric of every role: its name, kind, labels and one meaning, in one place (those of learning in
`tailrace.monitoring.telemetry.retraining_metrics`). Base units; the registry is injected.

Fed once a batch, commit, swap or run, never once an event. A histogram's `_count` is how often the thing happened, so
there are no counters beside it. No release is a label of what is counted often: `tailrace_model_info` tells which
release serves, and joins. docs/metrics.md is made of this file: `python -m tailrace.monitoring.telemetry.generate`.
"""

from __future__ import annotations

from functools import cached_property

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from tailrace.inference.releases.manifest import REASONS
from tailrace.monitoring.telemetry.definitions import WAITS, MetricDefinition, MetricGroup
from tailrace.monitoring.telemetry.health import Health
from tailrace.monitoring.telemetry.retraining_metrics import DriftMetrics, QualityMetrics, RetrainingMetrics
from tailrace.streams.join.state import Counts
from tailrace.streams.log.codec import DEAD_LETTER_REASONS

_FAST = (1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # stages, swaps
_SIZES = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384)
_DELAYS = (0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)

SCORING_STAGES = ("decode", "features", "predict", "encode", "commit")

# Found out when somebody looks: see tailrace.monitoring.telemetry.lag and tailrace.monitoring.telemetry.cost.
LAG_RECORDS = MetricDefinition(
    "tailrace_lag_records", "gauge", "Records behind the group's committed position.", ("topic", "partition")
)
LAG_SECONDS = MetricDefinition(
    "tailrace_lag_seconds",
    "gauge",
    "How long the oldest record behind the committed position has waited, at most; 0 when none is.",
    ("topic", "partition"),
)
COMPUTE_SECONDS = MetricDefinition(
    "tailrace_compute_seconds_total",
    "counter",
    "Processor seconds of this role and its child processes (cpu), and seconds that GPUs trained (gpu).",
    ("phase", "device"),
)
ENERGY_JOULES = MetricDefinition(
    "tailrace_energy_joules_total",
    "counter",
    "Energy of this role by where the figure comes from: rapl and nvml are counters, estimate is CPU time by watts.",
    ("phase", "source"),
)
COST = MetricDefinition(
    "tailrace_cost_total", "counter", "What energy and cores have cost at the configured prices.", ("phase", "currency")
)
HARDWARE_INFO = MetricDefinition(
    "tailrace_hardware_info",
    "gauge",
    "The machine that does a phase's work; always 1.",
    ("phase", "machine", "processor", "cores", "gpu"),
)
COLLECTED = (LAG_RECORDS, LAG_SECONDS, COMPUTE_SECONDS, ENERGY_JOULES, COST, HARDWARE_INFO)


class Metrics:
    """The metrics of one process, in a registry of their own unless one is given, and its health.

    A group exists from when it is first asked for: a role shows what it does, and nothing else.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series, and nothing here uses them
        self.registry = registry = registry or CollectorRegistry()
        self.health = Health()
        ProcessCollector(registry=registry)

    @cached_property
    def stream(self) -> StreamMetrics:
        """Of every loop."""
        return StreamMetrics(self.registry)

    @cached_property
    def inference(self) -> ScoringMetrics:
        """Of a worker's scoring."""
        return ScoringMetrics(self.registry)

    @cached_property
    def release(self) -> ReleaseMetrics:
        """Of the releases that a worker serves."""
        return ReleaseMetrics(self.registry)

    @cached_property
    def join(self) -> JoinMetrics:
        """Of a joiner."""
        return JoinMetrics(self.registry)

    @cached_property
    def retrain(self) -> RetrainingMetrics:
        """Of a retrainer's runs and updates."""
        return RetrainingMetrics(self.registry)

    @cached_property
    def quality(self) -> QualityMetrics:
        """Of what was served, by the labels that came back."""
        return QualityMetrics(self.registry)

    @cached_property
    def drift(self) -> DriftMetrics:
        """Of a retrainer that watches for drift."""
        return DriftMetrics(self.registry)

    def groups(self) -> dict[str, MetricGroup]:
        """All groups by the role that has them."""
        return {
            "Every role": self.stream,
            "Worker: scoring": self.inference,
            "Worker: releases": self.release,
            "Joiner": self.join,
            "Retrainer: runs and updates": self.retrain,
            "Retrainer: quality of what was served": self.quality,
            "Retrainer: drift": self.drift,
        }


class StreamMetrics(MetricGroup):
    """Reading, writing, committing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.batch_records = self._histogram("tailrace_batch_records", "Records read in one batch.", _SIZES)
        self.batch_seconds = self._histogram(
            "tailrace_batch_seconds", "From a batch read to it handed to the writer.", _FAST
        )
        self.commit_seconds = self._histogram("tailrace_commit_seconds", "How long a commit held up the loop.", _FAST)
        self.queue_records = self._gauge(
            "tailrace_queue_records", "Records that were read and whose results are not handed to a commit yet."
        )
        self.rebalances = self._counter(
            "tailrace_rebalances_total",
            "Times that partitions came (assigned) or went (revoked, lost).",
            kind=("assigned", "revoked", "lost"),
        )
        self.aborts = self._counter(
            "tailrace_aborts_total", "Transactions that left nothing behind and were done again."
        )
        self.dead_letters = self._counter(
            "tailrace_dead_letters_total",
            "Records that could not be used, by reason: they lie in the topic's dead letters, examples where they are.",
            reason=DEAD_LETTER_REASONS,
        )
        self.last_event = self._gauge(
            "tailrace_last_event_timestamp_seconds",
            "The newest event time that this role has seen (by a sample of each batch), in unix seconds.",
        )


class ScoringMetrics(MetricGroup):
    """Events become predictions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.events = self._counter(
            "tailrace_events_total",
            "Events by what became of them: predicted, dead_letter.",
            outcome=("predicted", "dead_letter"),
        )
        self.stage_seconds = self._histogram(
            "tailrace_stage_seconds",
            "What each stage of scoring takes for a batch (decode, features, predict, encode), and a commit.",
            _FAST,
            stage=SCORING_STAGES,
        )
        self.prediction_seconds = self._tally(
            "tailrace_prediction_seconds", "From an event's being read to the commit of its prediction.", WAITS
        )
        self.end_to_end_seconds = self._tally(
            "tailrace_end_to_end_seconds",
            "From an event's time (its own, else its record's) to its commit, by a sample of each batch.",
            WAITS,
        )


class ReleaseMetrics(MetricGroup):
    """Releases become what serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.model_info = self._gauge(
            "tailrace_model_info", "The release in each role, such as champion; always 1.", "role", "release"
        )
        self.trained_through = self._gauge(
            "tailrace_model_trained_through_timestamp_seconds",
            "The newest event that the release in each role has learned, in unix seconds; 0: it has learned nothing.",
            "role",
        )
        self.swap_pause_seconds = self._histogram(
            "tailrace_swap_pause_seconds", "How long a swap of releases held up scoring.", _FAST
        )
        self.release_load_seconds = self._histogram(
            "tailrace_release_load_seconds",
            "What the background took to fetch, verify and warm up a release that was swapped in.",
            WAITS,
        )
        self.rollbacks = self._counter("tailrace_rollbacks_total", "Swaps to an older release than the one before.")
        self.refusals = self._counter(
            "tailrace_refusals_total", "Releases that were not served, by reason.", reason=sorted(REASONS)
        )


class JoinMetrics(MetricGroup):
    """Predictions and labels become examples."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.outcomes = self._counter(
            "tailrace_join_outcomes_total",
            "What became of predictions and labels: matched, implicit, expired, late, unmatched, duplicate_labels, ...",
            outcome=Counts.__struct_fields__,
        )
        self.label_delay_seconds = self._tally(
            "tailrace_label_delay_seconds", "From an event to the label that won, of each example.", _DELAYS
        )
        self.held_records = self._gauge(
            "tailrace_join_held_records", "Predictions and early labels that wait in memory."
        )
        self.held_bytes = self._gauge("tailrace_join_held_bytes", "Bytes of the predictions that wait for their label.")
        self.watermark = self._gauge(
            "tailrace_watermark_timestamp_seconds",
            "Event time up to which label windows have closed in all partitions, in unix seconds.",
        )
