"""Every metric of a role: its name, type and meaning, in one place. Base units; the registry is injected.

Fed once a batch, commit, swap or run, never once an event. A histogram's `_count` is how often the thing happened, so
there are no counters beside it.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from monitoring.health import Health

_FAST = (1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # stages, swaps
_WAITS = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 3600.0, 86_400.0)
_SIZES = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384)
_RUNS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)


class Metrics:
    """The metrics of one process, in a registry of their own unless one is given, and its health.

    Every role has all of them; those of other roles stay at zero.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self.health = Health()
        ProcessCollector(registry=registry)
        self._runner(registry)
        self._inference(registry)
        self._joining(registry)
        self._retraining(registry)

    def _runner(self, registry: CollectorRegistry) -> None:
        self.batch_records = Histogram(
            "tailrace_batch_records", "Records read in one batch.", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "tailrace_batch_seconds", "From a batch read to it handed to the writer.", buckets=_FAST, registry=registry
        )
        self.commit_seconds = Histogram(
            "tailrace_commit_seconds", "How long a commit held up the loop.", buckets=_FAST, registry=registry
        )
        self.rebalances = Counter(
            "tailrace_rebalances",
            "Times that partitions came (assigned) or went (revoked, lost).",
            ["kind"],
            registry=registry,
        )
        self.aborts = Counter(
            "tailrace_aborts", "Transactions that left nothing behind and were done again.", registry=registry
        )

    def _inference(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "tailrace_events", "Events by what became of them: predicted, dead_letter.", ["outcome"], registry=registry
        )
        self.dead_letters = Counter(
            "tailrace_dead_letters", "Events that could not be used, by reason.", ["reason"], registry=registry
        )
        self.stage_seconds = Histogram(
            "tailrace_stage_seconds",
            "What each stage of scoring takes for a batch: decode, features, predict, encode.",
            ["stage"],
            buckets=_FAST,
            registry=registry,
        )
        self.end_to_end_seconds = Histogram(
            "tailrace_end_to_end_seconds",
            "From the time of the newest event in a commit (its own, else its record's) to that commit.",
            buckets=_WAITS,
            registry=registry,
        )
        self.model_info = Gauge(
            "tailrace_model_info",
            "The release in each role, such as champion; always 1.",
            ["role", "release"],
            registry=registry,
        )
        self.swap_pause_seconds = Histogram(
            "tailrace_swap_pause_seconds",
            "How long a swap of releases held up scoring.",
            buckets=_FAST,
            registry=registry,
        )
        self.release_load_seconds = Histogram(
            "tailrace_release_load_seconds",
            "What the background took to fetch, verify and warm up a release that was swapped in.",
            buckets=_WAITS,
            registry=registry,
        )
        self.refusals = Counter(
            "tailrace_refusals", "Releases that were not served, by reason.", ["reason"], registry=registry
        )

    def _joining(self, registry: CollectorRegistry) -> None:
        self.join_outcomes = Counter(
            "tailrace_join_outcomes",
            "What became of predictions and labels: matched, implicit, expired, late, unmatched, duplicate_labels, ...",
            ["outcome"],
            registry=registry,
        )
        self.join_held_records = Gauge(
            "tailrace_join_held_records", "Predictions and early labels that wait in memory.", registry=registry
        )

    def _retraining(self, registry: CollectorRegistry) -> None:
        self.retrain_runs = Counter(
            "tailrace_retrain_runs",
            "Retraining runs by what started them and what came of them.",
            ["trigger", "outcome"],
            registry=registry,
        )
        self.retrain_seconds = Histogram(
            "tailrace_retrain_seconds", "A run, from its trigger to its report.", buckets=_RUNS, registry=registry
        )
        self.retrain_progress = Gauge(
            "tailrace_retrain_progress_ratio", "How much of the run under way is done, 0 to 1.", registry=registry
        )
        self.retrain_loss = Gauge(
            "tailrace_retrain_loss", "The mean training loss of the newest steps of a run.", registry=registry
        )
        self.updates = Counter(
            "tailrace_updates",
            "Online updates by what came of them: published, refused, failed, overtaken.",
            ["outcome"],
            registry=registry,
        )
        self.updated_labels = Counter(
            "tailrace_updated_labels", "Labels that published online updates have learned.", registry=registry
        )
        self.update_seconds = Histogram(
            "tailrace_update_seconds",
            "An online update, from its labels' being there to its release.",
            buckets=_WAITS,
            registry=registry,
        )
        self.retrain_last_success_timestamp_seconds = Gauge(
            "tailrace_retrain_last_success_timestamp_seconds",
            "When the last run that published a release ended, in unix seconds.",
            registry=registry,
        )
