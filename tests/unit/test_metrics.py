"""Metrics: their names, and what the observers make of what roles report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from inference.scoring import Scored
from monitoring.health import Health
from monitoring.lag import LagCollector
from monitoring.metrics import Metrics
from monitoring.observers import Inference, Joining, Retraining, RunnerObserver
from streams.codec import Malformed
from streams.joining import Counts
from streams.log import Committed, Topic, TopicPartition
from streams.records import Out, Record
from streams.sqlite_log import SqliteLog

UNITS = ("_seconds", "_bytes", "_records", "_info", "_total", "_fds", "_ratio", "_loss")


class Step:
    """A join step as `Joining` sees it."""

    def __init__(self) -> None:
        self.counts = Counts()

    def held(self) -> int:
        """As many as were matched."""
        return self.counts.matched


class Report(NamedTuple):
    """A run's report as `Retraining` sees it."""

    outcome: str
    reason: str
    total_s: float = 2.0
    at: float = 1_000.0


@pytest.fixture
def metrics() -> Metrics:
    """Fresh metrics."""
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample of the registry."""
    return metrics.registry.get_sample_value(name, labels)


def test_names_end_in_units_and_have_help(metrics: Metrics) -> None:
    """Every metric has help, a prefix, a base unit at its end, and a name of its own (as promtool's linter asks)."""
    families = list(metrics.registry.collect())
    ours = [family for family in families if family.name.startswith("tailrace_")]
    assert len(ours) >= 16
    assert len({family.documentation for family in ours}) == len({family.name for family in ours}) == len(ours)
    for family in ours:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name.endswith(UNITS), name
        assert re.fullmatch(r"[a-z_]+", name), name
        assert family.documentation.endswith("."), name


def test_registry_is_injected() -> None:
    """Two sets of metrics live side by side; a given registry is used."""
    registry = CollectorRegistry()
    assert Metrics(registry).registry is registry
    assert Metrics().registry is not registry


def test_runner_is_observed(metrics: Metrics) -> None:
    """Batches, commits, rebalances and aborts are counted; an empty batch is none."""
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
    """Outcomes, reasons and stages of a batch are counted; a commit tells the time from the newest event to itself."""
    observer = Inference(metrics, clock=lambda: 50.25)
    letter = Malformed(Record("events", 0, 7, 0, None, b"?"), "invalid_json", "")
    observer.scored(Scored(1, 98, [letter, letter], 0.1, 0.2, 0.3, 0.4, 50.0))
    observer.committed(0.0)
    observer.committed(0.0)
    assert value(metrics, "tailrace_events_total", outcome="predicted") == 98
    assert value(metrics, "tailrace_events_total", outcome="dead_letter") == 2
    assert value(metrics, "tailrace_dead_letters_total", reason="invalid_json") == 2
    assert value(metrics, "tailrace_stage_seconds_sum", stage="predict") == 0.3
    assert value(metrics, "tailrace_end_to_end_seconds_sum") == 0.25
    assert value(metrics, "tailrace_end_to_end_seconds_count") == 1


def test_the_newest_event_of_a_commit_is_that_of_all_its_batches(metrics: Metrics) -> None:
    """A batch of older events behind a newer one does not make the commit look later than it was."""
    observer = Inference(metrics, clock=lambda: 50.25)
    for newest in (50.0, 20.0):
        observer.scored(Scored(1, 1, [], 0.1, 0.2, 0.3, 0.4, newest))
    observer.committed(0.0)
    assert value(metrics, "tailrace_end_to_end_seconds_sum") == 0.25


def test_restoring_is_not_judged(metrics: Metrics) -> None:
    """Before partitions are there, and from when all are gone or a transaction failed, the loop may take its time."""
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
    """The champion's release is the only one shown; pauses and refusals are counted."""
    observer = Inference(metrics)
    assert value(metrics, "tailrace_model_info", role="champion", release="0") == 1
    observer.swapped(0, 7, 0.001, 0.5)
    observer.refused(8, "bad_signature")
    assert value(metrics, "tailrace_model_info", role="champion", release="7") == 1
    assert value(metrics, "tailrace_model_info", role="champion", release="0") is None
    assert value(metrics, "tailrace_swap_pause_seconds_count") == 1
    assert value(metrics, "tailrace_refusals_total", reason="bad_signature") == 1


def test_join_is_observed(metrics: Metrics) -> None:
    """Each commit adds what the join has counted since the last one."""
    step = Step()
    observer = Joining(metrics, step)
    for _ in range(2):
        step.counts.matched += 5
        step.counts.late += 1
        observer.committed(0.0)
    assert value(metrics, "tailrace_join_outcomes_total", outcome="matched") == 10
    assert value(metrics, "tailrace_join_outcomes_total", outcome="late") == 2
    assert value(metrics, "tailrace_join_held_records") == 10


def test_runs_are_observed(metrics: Metrics) -> None:
    """Runs are counted by one word for their trigger; only a published release counts as success."""
    observer = Retraining(metrics)
    observer.ran(Report("published", "2,000 new labels (every 2,000)", at=1_000.0))
    observer.ran(Report("refused", "schedule '0 * * * *', due 12:00, 3 new labels", at=2_000.0))
    assert value(metrics, "tailrace_retrain_runs_total", trigger="labels", outcome="published") == 1
    assert value(metrics, "tailrace_retrain_runs_total", trigger="schedule", outcome="refused") == 1
    assert value(metrics, "tailrace_retrain_seconds_sum") == 4.0
    assert value(metrics, "tailrace_retrain_last_success_timestamp_seconds") == 1_000.0


def test_observers_need_no_metrics() -> None:
    """Without metrics the same calls are made, and nobody is told."""
    observer = Inference(None)
    observer.batch(1, 1, 0.1)
    assert Inference(None) is not observer


def test_lag_counts_what_is_not_committed(tmp_path: Path, metrics: Metrics) -> None:
    """Lag is what lies between the group's position and the end; a topic that is missing gives none."""
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic("events", 2)])
    writer, reader = log.writer(), log.reader(["events"], group="g")
    writer.write([Out("events", None, b"{}", partition=n % 2) for n in range(10)])
    writer.commit({TopicPartition("events", 0): Committed(3)}, reader if reader.read(10, 1) else None)
    writer.flush()
    metrics.registry.register(LagCollector(log, "g", ["events"]))
    metrics.registry.register(LagCollector(log, "g", ["nothing"]))
    assert value(metrics, "tailrace_lag_records", topic="events") == 7
    assert value(metrics, "tailrace_lag_records", topic="nothing") is None
    for opened in (writer, reader, log):
        opened.close()


def test_health_is_silence_too_long() -> None:
    """A loop is well while it beats; one that never began is not judged."""
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
    """Runs by the trigger that their reason tells, their progress; updates by outcome, and what they learned."""
    observer = Retraining(metrics)
    for reason, trigger in [
        ("schedule '0 * * * *', due 2026-01-01 10:00 UTC, 5 new labels", "schedule"),
        ("2,004 new labels (every 2,000)", "labels"),
        ("champion is 7 h old (at most 6 h), 12 new labels", "age"),
        ("loss rose from 0.3000 to 0.5000, 250 labels ago", "drift"),
        ("amount and 2 more shifted: stability index 0.60 (at most 0.25)", "drift"),
        ("400 labels since the loss rose, 200 at the last run", "drift"),
        ("log_loss 0.5000 over 2,000 labels (should be 0.4000)", "below"),
        ("a run saves 3 and costs 1: log_loss 0.5000, was 0.4000", "worthwhile"),
    ]:
        before = value(metrics, "tailrace_retrain_runs_total", trigger=trigger, outcome="refused") or 0
        observer.ran(Ran(reason))
        assert value(metrics, "tailrace_retrain_runs_total", trigger=trigger, outcome="refused") == before + 1, reason
    observer.progressed(30, 120, 0.5)
    assert value(metrics, "tailrace_retrain_progress_ratio") == 0.25
    assert value(metrics, "tailrace_retrain_loss") == 0.5
    observer.updated(Updated("published"))
    observer.updated(Updated("refused"))
    assert value(metrics, "tailrace_updates_total", outcome="published") == 1
    assert value(metrics, "tailrace_updated_labels_total") == 50
    assert value(metrics, "tailrace_update_seconds_count") == 2


class Ran(NamedTuple):
    """A run that the gate refused."""

    reason: str
    outcome: str = "refused"
    total_s: float = 1.0
    at: float = 0.0


class Updated(NamedTuple):
    """An online update of fifty labels."""

    outcome: str
    labels: int = 50
    total_s: float = 0.1
