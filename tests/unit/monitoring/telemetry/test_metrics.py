"""Metrics: their names, and the values that observers give them."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import CollectorRegistry

from tailrace.inference.serving.scoring import Scored
from tailrace.monitoring.telemetry.health import Health
from tailrace.monitoring.telemetry.histogram import BatchHistogram
from tailrace.monitoring.telemetry.lag import LagCollector, Reached
from tailrace.monitoring.telemetry.metrics import COLLECTED, Metrics
from tailrace.monitoring.telemetry.observers import JoinerObserver, RunnerObserver, WorkerObserver
from tailrace.monitoring.telemetry.retraining_observer import RetrainingObserver, foremost
from tailrace.retrain.control.drift_level import Level
from tailrace.retrain.control.reports import RunReport, UpdateReport
from tailrace.streams.join.state import Counts
from tailrace.streams.log.base import Batch, Committed, Topic, TopicPartition
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.sqlite.log import SqliteLog

UNITS = ("_seconds", "_bytes", "_records", "_info", "_total", "_ratio", "_loss", "_error", "_labels", "_examples")
DIMENSIONLESS = {"tailrace_drift_score", "tailrace_drift_threshold"}
LOSS_UNITS = {"tailrace_drift_loss_score", "tailrace_drift_loss_threshold"}  # of the metric that the trigger watches


class FakeJoinStep:
    """The statistics of a join step, set by hand."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.dead_letters = Counter[str]()
        self.last_malformed = None
        self.delays = [30.0, 4_000.0]

    def held(self) -> int:
        """Number of matched predictions."""
        return self.counts.matched

    def held_bytes(self) -> int:
        """A hundred bytes for each of them."""
        return 100 * self.counts.matched

    def watermark(self) -> float:
        """No window has closed."""
        return -math.inf

    def newest(self) -> float:
        """Event time of the newest prediction."""
        return 70.0


def run_report(outcome: Literal["published", "refused", "failed"], trigger: str, at: float = 1_000.0) -> RunReport:
    """The report of a run of two seconds on a GPU."""
    return RunReport(
        outcome=outcome, reason="", trigger=trigger, detail="", parent=0, since=0.0, at=at, examples=300, fresh=300,
        total_s=2.0, seconds=0.5, device="cuda",
    )  # fmt: skip


def update_report(outcome: Literal["published", "refused"]) -> UpdateReport:
    """The report of an online update of fifty labels."""
    return UpdateReport(outcome=outcome, detail="", labels=50, version=None, loss=0.6, seconds=0.05, total_s=0.1)


@pytest.fixture
def metrics() -> Metrics:
    """Metrics in a new registry."""
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Value of one series; None if it does not exist."""
    return metrics.registry.get_sample_value(name, labels)


def test_names_end_in_units_and_have_help(metrics: Metrics) -> None:
    """Every metric has help, a prefix, a base unit at its end, and a unique name (the rules of promtool's linter)."""
    ours = [*COLLECTED, *(defined for group in metrics.groups().values() for defined in group.defined)]
    exposed = {family.name for family in metrics.registry.collect() if family.name.startswith("tailrace_")}
    assert exposed <= {defined.name.removesuffix("_total") for defined in ours}
    assert len(ours) >= 45
    assert len({defined.meaning for defined in ours}) == len({defined.name for defined in ours}) == len(ours)
    for defined in ours:
        name = defined.name
        assert name.endswith(UNITS) or name in DIMENSIONLESS | LOSS_UNITS, name
        assert re.fullmatch(r"[a-z_]+", name), name
        assert name.endswith("_total") == (defined.kind == "counter"), name
        assert defined.meaning.endswith("."), name
        assert "release" not in defined.labels or name == "tailrace_model_info"


def test_registry_is_injected() -> None:
    """A given registry is used, and without one two sets of metrics have two registries."""
    registry = CollectorRegistry()
    assert Metrics(registry).registry is registry
    assert Metrics().registry is not registry


def test_runner_is_observed(metrics: Metrics) -> None:
    """Batches, commits, rebalances and aborts are counted; an empty batch is not."""
    observer = RunnerObserver(metrics)
    observer.batch(100, 99, 0.01)
    observer.batch(0, 0, 0.0)
    observer.idle()
    observer.committed(0.002)
    observer.rebalanced("assigned", 4)
    observer.aborted()
    assert value(metrics, "tailrace_batch_records_sum") == 100
    assert value(metrics, "tailrace_batch_seconds_count") == 1
    assert value(metrics, "tailrace_commit_seconds_sum") == 0.002
    assert value(metrics, "tailrace_rebalances_total", kind="assigned") == 1
    assert value(metrics, "tailrace_aborts_total") == 1


def test_scoring_is_observed(metrics: Metrics) -> None:
    """Outcomes, reasons and stages of a batch are counted; a commit adds the latencies of its events."""
    observer = WorkerObserver(metrics, clock=lambda: 50.25)
    letter = Malformed(Record("events", 0, 7, 0, None, b"?"), "invalid_json", "")
    observer.took(Batch([letter.record] * 100))
    observer.scored(Scored(1, 98, [letter, letter], 0.1, 0.2, 0.3, 0.4, [50.0, 49.25]))
    observer.committed(0.0)
    observer.committed(0.0)
    assert value(metrics, "tailrace_events_total", outcome="predicted") == 98
    assert value(metrics, "tailrace_events_total", outcome="dead_letter") == 2
    assert value(metrics, "tailrace_dead_letters_total", reason="invalid_json") == 2
    assert value(metrics, "tailrace_stage_seconds_sum", stage="predict") == 0.3
    assert value(metrics, "tailrace_stage_seconds_count", stage="commit") == 2
    assert value(metrics, "tailrace_prediction_seconds_count") == 100
    assert value(metrics, "tailrace_end_to_end_seconds_sum") == 1.25
    assert value(metrics, "tailrace_end_to_end_seconds_bucket", le="0.25") == 1
    assert value(metrics, "tailrace_end_to_end_seconds_count") == 2
    assert value(metrics, "tailrace_last_event_timestamp_seconds") == 50.0


def test_a_sample_stands_for_all_events(metrics: Metrics) -> None:
    """Few event times of a large batch are read, each with its weight; an aborted batch is not counted."""
    observer = WorkerObserver(metrics, clock=lambda: 50.0)
    observer.scored(Scored(1, 320, [], 0.1, 0.2, 0.3, 0.4, [48.0] * 160 + [49.0] * 160))
    observer.committed(0.0)
    observer.scored(Scored(1, 1, [], 0.1, 0.2, 0.3, 0.4, [20.0]))
    observer.aborted()
    observer.committed(0.0)
    assert value(metrics, "tailrace_end_to_end_seconds_count") == 320
    assert value(metrics, "tailrace_end_to_end_seconds_sum") == 480.0
    assert value(metrics, "tailrace_last_event_timestamp_seconds") == 49.0


def test_a_batch_histogram_is_a_histogram(metrics: Metrics) -> None:
    """Values at a bound belong to its bucket, buckets accumulate, and an empty batch is accepted."""
    tally = BatchHistogram("tailrace_waits_seconds", "Waits.", (1, 10.0), metrics.registry)
    tally.observe([])
    tally.observe([0.5, 1.0, 10.0, 11.0])
    tally.observe([5.0], weight=3)
    buckets = [value(metrics, "tailrace_waits_seconds_bucket", le=le) for le in ("1.0", "10.0", "+Inf")]
    assert buckets == [2, 6, 7]
    assert value(metrics, "tailrace_waits_seconds_sum") == 37.5


def test_restoring_is_not_judged(metrics: Metrics) -> None:
    """Health is not judged before partitions are assigned, after all are gone, and after an abort."""
    now = 0.0
    metrics.health = health = Health(limit=30, clock=lambda: now)
    observer = RunnerObserver(metrics)

    def well_after_a_while() -> bool:
        nonlocal now
        now += 31.0
        return health.problem() is None

    assert well_after_a_while()
    observer.idle()
    assert well_after_a_while()
    observer.rebalanced("assigned", 3)
    observer.rebalanced("revoked", 1)
    assert not well_after_a_while()
    observer.aborted()
    assert well_after_a_while()
    observer.batch(1, 1, 0.1)
    assert not well_after_a_while()
    observer.rebalanced("lost", 2)
    observer.idle()
    assert well_after_a_while()
    observer.rebalanced("assigned", 3)
    assert not well_after_a_while()


def test_swaps_and_refusals_are_observed(metrics: Metrics) -> None:
    """Only the champion's release is shown; pauses, rollbacks and refusals are counted."""
    observer = WorkerObserver(metrics)
    assert value(metrics, "tailrace_model_info", role="champion", release="0") == 1
    observer.swapped(0, 7, 0.001, 0.5, 1_234.0)
    observer.refused(8, "bad_signature")
    assert value(metrics, "tailrace_model_trained_through_timestamp_seconds", role="champion") == 1_234.0
    assert value(metrics, "tailrace_rollbacks_total") == 0
    assert value(metrics, "tailrace_model_info", role="champion", release="7") == 1
    assert value(metrics, "tailrace_model_info", role="champion", release="0") is None
    assert value(metrics, "tailrace_swap_pause_seconds_count") == 1
    assert value(metrics, "tailrace_refusals_total", reason="bad_signature") == 1
    observer.swapped(7, 6, 0.001, 0.5, 1_000.0)
    assert value(metrics, "tailrace_rollbacks_total") == 1


def test_join_is_observed(metrics: Metrics) -> None:
    """Each commit adds the statistics of the join since the commit before."""
    step = FakeJoinStep()
    observer = JoinerObserver(metrics, step)
    for _ in range(2):
        step.counts.matched += 5
        step.counts.late += 1
        step.dead_letters["unknown_label"] += 1
        observer.committed(0.0)
    assert value(metrics, "tailrace_join_outcomes_total", outcome="matched") == 10
    assert value(metrics, "tailrace_join_outcomes_total", outcome="late") == 2
    assert value(metrics, "tailrace_join_held_records") == 10
    assert value(metrics, "tailrace_join_held_bytes") == 1_000
    assert value(metrics, "tailrace_dead_letters_total", reason="unknown_label") == 2
    assert value(metrics, "tailrace_label_delay_seconds_count") == 4
    assert value(metrics, "tailrace_last_event_timestamp_seconds") == 70.0


def test_runs_are_observed(metrics: Metrics) -> None:
    """Runs are counted by trigger and outcome; only a published release counts as success."""
    observer = RetrainingObserver(metrics)
    observer.ran(run_report("published", "labels", at=1_000.0), {"train": 0.5, "gate": 0.1})
    observer.ran(run_report("refused", "schedule", at=2_000.0), {"train": 0.5})
    assert value(metrics, "tailrace_retrain_runs_total", trigger="labels", outcome="published") == 1
    assert value(metrics, "tailrace_retrain_runs_total", trigger="schedule", outcome="refused") == 1
    assert value(metrics, "tailrace_retrain_seconds_sum") == 4.0
    assert value(metrics, "tailrace_retrain_last_success_timestamp_seconds") == 1_000.0
    assert value(metrics, "tailrace_retrain_rows_total") == 600
    assert value(metrics, "tailrace_retrain_stage_seconds_sum", stage="train") == 1.0
    assert observer.gpu_seconds == 1.0


def test_examples_quality_and_drift_are_observed(metrics: Metrics) -> None:
    """Examples, quality, waiting labels and drift become metrics; the features nearest to drift have a series each."""
    observer = RetrainingObserver(metrics)
    letter = Malformed(Record("examples", 0, 7, 0, None, b"?"), "unfit", "")
    observer.taken(9, [letter])
    observer.measured({"examples": 9.0, "log_loss": 0.5, "accuracy": 0.75, "calibration_error": 0.1})
    observer.watched(3, 1_500.0)
    levels = {f"f{n:02}": Level(n / 100, 0.25) for n in range(30)}
    observer.drifted(levels, Level(-0.1, 0.2), {"loss": 1, "inputs": 2})
    observer.drifted(levels | {"f00": Level(0.5, 0.25)}, Level(-0.1, 0.2), {"loss": 1, "inputs": 5})
    assert value(metrics, "tailrace_examples_total") == 9
    assert value(metrics, "tailrace_dead_letters_total", reason="unfit") == 1
    assert value(metrics, "tailrace_quality_accuracy_ratio", role="champion") == 0.75
    assert value(metrics, "tailrace_retrain_waiting_labels") == 3
    assert value(metrics, "tailrace_retrain_next_timestamp_seconds") == 1_500.0
    assert value(metrics, "tailrace_drift_detections_total", kind="inputs") == 5
    assert value(metrics, "tailrace_drift_score", feature="f00") == 0.5
    assert value(metrics, "tailrace_drift_score", feature="f10") is None
    assert value(metrics, "tailrace_drift_score", feature="(other)") == 0.1
    assert value(metrics, "tailrace_drift_loss_score") == -0.1
    assert value(metrics, "tailrace_drift_loss_threshold") == 0.2
    assert len(foremost(levels)) == 21


def test_features_named_loss_and_other_have_their_own_series(metrics: Metrics) -> None:
    """Features named `loss` and `other` collide neither with the loss of the model nor with the remaining features."""
    observer = RetrainingObserver(metrics)
    levels = {f"f{n:02}": Level(n / 100, 0.25) for n in range(30)}
    observer.drifted(
        levels | {"loss": Level(0.4, 0.25), "other": Level(0.5, 0.25)}, Level(0.01, 0.02), {"loss": 0, "inputs": 2}
    )
    assert value(metrics, "tailrace_drift_score", feature="loss") == 0.4
    assert value(metrics, "tailrace_drift_score", feature="other") == 0.5
    assert value(metrics, "tailrace_drift_score", feature="(other)") == 0.11
    assert value(metrics, "tailrace_drift_loss_score") == 0.01
    assert value(metrics, "tailrace_drift_loss_threshold") == 0.02


def test_observers_need_no_metrics() -> None:
    """An observer without metrics takes the same calls."""
    observer = WorkerObserver(None)
    observer.batch(1, 1, 0.1)
    assert WorkerObserver(None) is not observer


def test_lag_counts_what_is_not_committed(tmp_path: Path, metrics: Metrics) -> None:
    """Lag is the number of records between the group's position and the end of a partition, and their age; a missing
    topic has no lag."""
    now = 100.0
    reached = Reached(clock=lambda: now)
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic("events", 2)])
    writer, reader = log.writer(), log.reader(["events"], group="g")
    writer.write([Out("events", None, b"{}", partition=n % 2) for n in range(10)])
    reader.read(10, 0)
    writer.commit({TopicPartition("events", 0): Committed(3), TopicPartition("events", 1): Committed(5)}, reader)
    writer.flush()
    lag = LagCollector(log, "g", ["events"], reached)
    metrics.registry.register(lag)

    def shown(name: str) -> list[float | None]:
        return [value(metrics, name, topic="events", partition=partition) for partition in "01"]

    assert shown("tailrace_lag_records") == [2, 0]
    assert shown("tailrace_lag_seconds") == [None, 0]
    reached.took(Batch([Record("events", 0, 3, 40_000, None, b"{}")]))
    assert shown("tailrace_lag_seconds") == [60, 0]
    reached.took(Batch([], {TopicPartition("events", 0): 5}))
    now = 110.0
    assert shown("tailrace_lag_seconds") == [10, 0]
    reached.took(Batch([Record("events", 0, 4, 1_000, None, b"{}")]))  # an old record that was replayed
    now = 130.0
    assert shown("tailrace_lag_seconds") == [30, 0]
    reached.forget()
    assert shown("tailrace_lag_seconds") == [None, 0]
    assert list(LagCollector(log, "g", ["nothing"]).collect()) == []
    for opened in (writer, reader, log):
        opened.close()


def test_a_silent_loop_is_unhealthy() -> None:
    """A loop is healthy while it beats; a loop that never began is not judged."""
    now = 0.0
    health = Health(limit=10, clock=lambda: now)
    now = 100.0
    assert health.problem() is None
    health.beat()
    now = 110.0
    assert health.problem() is None
    now = 111.0
    assert "11 s" in (health.problem() or "")


def test_runs_and_updates_are_observed(metrics: Metrics) -> None:
    """Runs are counted by trigger, updates by outcome; progress, loss and labels are set."""
    observer = RetrainingObserver(metrics)
    for trigger in ("schedule", "labels", "age", "drift", "below", "worthwhile", "other"):
        observer.ran(run_report("refused", trigger), {})
        assert value(metrics, "tailrace_retrain_runs_total", trigger=trigger, outcome="refused") == 1
    observer.progressed(30, 120, 0.5)
    assert value(metrics, "tailrace_retrain_progress_ratio") == 0.25
    assert value(metrics, "tailrace_retrain_loss") == 0.5
    observer.updated(update_report("published"))
    observer.updated(update_report("refused"))
    assert value(metrics, "tailrace_updates_total", outcome="published") == 1
    assert value(metrics, "tailrace_updated_labels_total") == 50
    assert value(metrics, "tailrace_update_seconds_count") == 2
