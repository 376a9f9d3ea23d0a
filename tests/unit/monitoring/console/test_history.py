"""The history of the model, folded from the models topic."""

from __future__ import annotations

from support.console_records import NOW, PIPELINE, example, records, release, run_report, written

from tailrace.inference.releases.manifest import alias_record
from tailrace.monitoring.console.page import ConsolePage


def test_history_has_updates_runs_and_operators() -> None:
    """Consecutive updates share an entry, a run has its reason and gate result, an operator's change has a name."""
    page = ConsolePage(PIPELINE)
    page.take(records("examples", example(1)), NOW)
    page.take(written(*release(1, learned=50), *release(2, learned=60), at=NOW), NOW)
    page.take(written(run_report(3, trigger="drift"), *release(3), start=10, at=NOW + 1), NOW)
    by_hand = alias_record("models", "champion", 2, "ada", "it was better", 0.0)
    page.take(written(by_hand, start=20, at=NOW + 2), NOW)
    hand, run, updates = page.sections(NOW + 3)["timeline"]
    assert (updates["count"], updates["labels"], updates["first"], updates["last"]) == (2, 110, 1, 2)
    assert (run["title"], run["gate"], run["trigger"]) == ("Retrained: release 3", "passed", "drift")
    assert "because of drift" in run["reason"]
    assert (hand["title"], hand["reason"]) == ("ada made release 2 the champion", "it was better")
    assert [mark["kind"] for mark in page.history.marks()] == ["drift", "operator"]
    assert page.sections(NOW + 3)["releases"]["champion"] == 2


def test_a_refused_run_keeps_the_last_published_one() -> None:
    """The report of a refused run replaces the last run and leaves the last published run as it is."""
    page = ConsolePage(PIPELINE)
    page.take(written(run_report(1, at=5.0), run_report(None, at=9.0)), NOW)
    assert page.history.last_run is not None
    assert page.history.last_published is not None
    assert (page.history.last_run.at, page.history.last_published.at) == (9.0, 5.0)
