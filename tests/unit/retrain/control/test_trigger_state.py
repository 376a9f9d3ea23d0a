"""The watch: facts from examples and runs, as the service and a backtest feed it."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace.declaration.facts import DriftSignals, Facts
from tailrace.declaration.task import Kind
from tailrace.declaration.triggers import Age, Below, Drift, Labels, Worthwhile, first_due
from tailrace.retrain.control.trigger_state import TriggerState, live_losses


def test_labels_are_counted_from_run_to_run() -> None:
    """A run resets labels and since; what comes while it trains counts for the next."""
    watch = TriggerState([Labels(5)])
    watch.take(np.zeros(3), None, 20.0, oldest_label_time=10.0)
    assert watch.facts(30.0) == Facts(30.0, 10.0, 3)
    watch.run_started(watch.facts(30.0))
    watch.take(np.zeros(2), None, 40.0)
    assert watch.facts(50.0) == Facts(50.0, 30.0, 2)
    assert watch.newest == 40.0


def test_nothing_is_watched_that_no_trigger_needs() -> None:
    """Without triggers that look, neither losses nor inputs are wanted."""
    assert TriggerState([Labels(5), Age("1h")]).metrics == frozenset()
    assert not TriggerState([Labels(5)]).wants_inputs
    assert TriggerState([Drift()], metric="squared_error").metrics == {"squared_error"}
    assert TriggerState([Below("accuracy"), Worthwhile(value=1, price=1)]).metrics == {"accuracy", "log_loss"}
    assert TriggerState([Drift()]).wants_inputs
    assert not TriggerState([Drift(shift=None)]).wants_inputs


def test_the_age_is_the_published_champions() -> None:
    """A release sets the age back; a refused run does not, and what a run took is known either way."""
    watch = TriggerState([Age(100)], since=0.0, created=0.0)
    watch.take(np.zeros(1), None, 1.0)
    assert first_due([Age(100)], watch.facts(100.0)) is not None
    watch.run_started(watch.facts(100.0))
    watch.run_ended(7.5)
    watch.take(np.zeros(1), None, 101.0)
    assert watch.facts(150.0).created == 0.0
    assert watch.facts(150.0).run_s == 7.5
    watch.published(150.0, {})
    assert watch.facts(160.0).created == 150.0


def test_live_figures_are_over_the_newest_labels_since_the_run() -> None:
    """The window slides, starts anew with a run, and is compared with what the champion had at the gate."""
    trigger = Below("accuracy", over=4)
    watch = TriggerState([trigger], since=0.0)
    watch.take({"accuracy": np.array([1.0, 1, 0, 0, 0, 1])}, None, 1.0)
    (live,) = watch.facts(2.0).live
    assert (live.labels, live.mean, live.reference) == (4, 0.25, None)
    watch.run_started(watch.facts(2.0))
    assert watch.facts(2.0).live == ()
    watch.published(3.0, {"accuracy": 0.1}, examples=100)
    watch.take({"accuracy": np.array([1.0, 1, 1, 0])}, None, 4.0)
    (live,) = watch.facts(5.0).live
    assert (live.mean, live.reference) == (0.75, 0.1)
    assert live.error == pytest.approx(0.25)
    assert live.reference_error == pytest.approx(0.05)


def test_all_losses_since_the_run_are_summed_for_worth() -> None:
    """The cost of staleness is measured over every label since the run."""
    watch = TriggerState([Worthwhile(value=1, price=1)], since=0.0)
    watch.published(0.0, {"log_loss": 0.1})
    losses = np.random.default_rng(0).exponential(1.0, 5_000)
    for part in np.array_split(losses, 7):
        watch.take(part, None, 1.0)
    (live,) = watch.facts(2.0).live
    assert (live.labels, live.mean) == (5_000, pytest.approx(losses.mean()))
    assert live.error == pytest.approx(losses.std(ddof=1) / 5_000**0.5)


def test_events_are_counted_where_somebody_counts_them() -> None:
    """Events since the run: unknown until told, then from run to run."""
    watch = TriggerState([Labels(5)], since=0.0)
    assert watch.facts(0.0).events is None
    watch.scored(70)
    assert watch.facts(0.0).events == 70
    watch.run_started(watch.facts(1.0))
    assert watch.facts(1.0).events == 0


def test_drift_is_considered_by_any_run() -> None:
    """A run begun for whatever reason answers the drift; follow-ups count from what it had."""
    watch = TriggerState([Drift(), Labels(100_000)], since=0.0)
    random = np.random.default_rng(0)
    watch.take(np.concatenate((random.exponential(0.1, 5_000), random.exponential(0.5, 500))), None, 1.0)
    facts = watch.facts(1.0)
    assert facts.drift is not None
    assert facts.drift.loss is not None
    watch.run_started(facts)
    changed = facts.drift.changed
    assert watch.facts(1.0).drift == DriftSignals(changed=changed, learned=changed or 0)


def test_live_losses_are_the_gates() -> None:
    """Those wanted that fit the kind, one an example."""
    scores, targets = np.array([[0.9], [0.2]], np.float32), np.array([1, 1], np.float32)
    found = live_losses(Kind.BINARY, scores, targets, {"accuracy", "log_loss", "squared_error"})
    assert set(found) == {"accuracy", "log_loss"}
    assert found["accuracy"].tolist() == [0, 1]
    assert live_losses(Kind.REGRESSION, scores, targets, {"squared_error"})["squared_error"] == pytest.approx(
        [0.01, 0.64]
    )
