"""The page as a fold over records: its content, its redaction, its bounded size, and the facts of the triggers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from support.console_records import (
    NOW,
    PIPELINE,
    TASK,
    example,
    people,
    prediction,
    records,
    release,
    run_report,
    written,
)

from tailrace.declaration.training import Training
from tailrace.declaration.triggers import Age, Labels, Schedule
from tailrace.inference.serving.loader import base_rate_serving
from tailrace.monitoring.console.dead_letters import ROWS as DEAD_LETTERS
from tailrace.monitoring.console.history import RELEASES
from tailrace.monitoring.console.page import ConsolePage, LogState
from tailrace.monitoring.console.tail import ROWS
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import dead_letter

HOUR = 3_600.0


def test_a_prediction_gets_its_label_when_it_comes() -> None:
    """The tail shows a prediction without a label, then its label, its delay and whether the prediction was correct."""
    page = ConsolePage(PIPELINE)
    page.take(records("predictions", prediction(1), prediction(2, 0.3)), NOW)
    (second, first) = page.sections(NOW)["tail"]["predicted"]
    assert (first["id"], first["answer"], first["release"]) == ("1", "80%", 1)
    assert "label" not in first
    page.take(records("examples", example(1, 0)), NOW)
    tail = page.sections(NOW)["tail"]
    assert tail["predicted"][1]["label"] == 0
    assert tail["predicted"][1]["correct"] is False
    assert tail["predicted"][1]["delay_s"] == 300.0
    assert tail["labelled"][0]["id"] == "1"
    assert second["id"] == "2"


def test_redacted_fields_are_hidden_wherever_they_stand() -> None:
    """Fields are hidden in events and readable dead letters at every depth; unreadable values and details entirely."""
    page = ConsolePage(PIPELINE, ["name"])
    page.take(records("predictions", prediction(1)), NOW)
    page.take(records("examples", example(1)), NOW)
    bad = [b'{"name":"Ada","x":"?","in":[{"name":"Ada"}]}', b"Ada {", b'"Ada"', b"\xff Ada"]
    dead = [dead_letter(Malformed(record, "wrong_shape", "not Ada")) for record in records("events", *bad)]
    page.take(written(*dead), NOW)
    shown = msgspec.json.encode(page.sections(NOW)).decode()
    assert "Ada" not in shown
    assert shown.count("•••") >= 6
    assert '\\"in\\":[{\\"name\\":\\"•••\\"}]' in shown


def test_ids_and_labels_can_be_redacted() -> None:
    """The names `id` and `label` hide event ids and labels."""
    page = ConsolePage(PIPELINE, ["id", "label"])
    page.take(records("predictions", prediction(77)), NOW)
    page.take(records("examples", example(77, 1)), NOW)
    row = page.sections(NOW)["tail"]["labelled"][0]
    assert (row["id"], row["label"], row["event"]["id"]) == ("•••", "•••", "•••")


def test_the_page_stays_small() -> None:
    """Rows, points and entries are bounded, whatever number of records is taken."""
    page = ConsolePage(PIPELINE)
    sizes = []
    for turn in range(60):
        now = NOW + 20 * turn
        ids = range(500 * turn, 500 * turn + 500)
        page.take(records("predictions", *map(prediction, ids), at=now), now)
        page.take(records("examples", *map(example, ids), at=now), now)
        outs = [out for version in range(5 * turn + 1, 5 * turn + 6) for out in release(version, learned=50)]
        page.take(written(*outs, run_report(None), start=100 * turn, at=now), now)
        malformed = (Malformed(record, "null", "") for record in records("events", *[b"{}"] * 40))
        page.take(written(*map(dead_letter, malformed)), now)
        page.take_log_state(LogState(dict.fromkeys(("events", "examples"), 500 * turn), {"worker": 0}), now)
        sizes.append(len(msgspec.json.encode(page.sections(now))))
    sections = page.sections(now)
    assert len(sections["tail"]["predicted"]) == len(sections["tail"]["labelled"]) == ROWS
    assert len(sections["releases"]["rows"]) == RELEASES
    assert len(sections["dead_letters"]["rows"]) == DEAD_LETTERS
    assert sections["dead_letters"]["total"] == 60 * 40
    assert sections["releases"]["updates"] == 300
    assert max(sizes[30:]) < 1.2 * min(sizes[30:])
    assert len(page._tail._unlabelled) <= 2_000


def test_swaps_are_seen_in_predictions() -> None:
    """A swap is counted when the newest prediction names another release than the one before."""
    page = ConsolePage(PIPELINE)
    page.take(records("predictions", prediction(1, release=0), at=NOW), NOW)
    page.take(records("predictions", prediction(2, release=1), start=1, at=NOW + 1), NOW)
    page.take(records("predictions", prediction(3, release=1), start=2, at=NOW + 2), NOW)
    releases = page.sections(NOW)["releases"]
    assert (releases["serving"], releases["swaps"]) == (1, 1)


def test_rates_and_labels_since_the_last_run() -> None:
    """Rates cover the last seconds; the next run waits for the labels that the last one did not consider."""
    page = ConsolePage(PIPELINE)
    page.take(written(run_report(None)), NOW)
    page.take(records("predictions", prediction(1)), NOW + 18)
    for second in range(20):
        counts = {"events": 100 * second, "examples": 10 * second}
        page.take_log_state(LogState(counts, {"worker": 7}, new_labels=40), NOW + second)
    sections = page.sections(NOW + 19)
    assert sections["flow"]["rates"] == {"events": 100.0, "examples": 10.0}
    assert sections["flow"]["lags"] == {"worker": 7}
    assert sections["status"]["text"].endswith("next retraining after 160 more labels")


def test_the_live_model_is_measured_beside_references() -> None:
    """Live, base-rate and frozen model are measured on the same examples, the frozen one on those that came after."""
    page = ConsolePage(PIPELINE)
    page.take(records("examples", *(example(n, 1, 0.5) for n in range(10)), at=NOW), NOW)
    page.freeze(base_rate_serving(TASK, 0.5)._replace(release=7), NOW + 5)
    page.take(records("examples", *(example(n, 1, 0.8) for n in range(10, 20)), start=10, at=NOW + 10), NOW)
    live, base, frozen = page.sections(NOW)["quality"]["models"]
    assert live["now"]["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    assert base["now"]["log_loss"] == pytest.approx(-np.log(0.25))
    assert (frozen["label"], frozen["now"]["log_loss"]) == ("v7, frozen", pytest.approx(-np.log(0.5)))
    assert frozen["curves"]["log_loss"][0] is None


def test_the_chart_runs_in_event_time() -> None:
    """A replay of old events within a second gives a chart over their own hours, and marks stand where they belong."""
    page = ConsolePage(PIPELINE)
    late = [msgspec.structs.replace(example(n), label_time=1_000.0 + HOUR * n) for n in range(6)]
    page.take(records("examples", *late[:3]), NOW)
    page.take(written(run_report(1), *release(1, trained_through=500.0), at=NOW + 0.5), NOW + 0.5)
    page.take(records("examples", *late[3:], start=3), NOW + 1)
    quality = page.sections(NOW + 1)["quality"]
    assert quality["at"] == pytest.approx([1_000.0 + HOUR * n for n in range(6)], abs=1.0)
    assert [mark["at"] for mark in quality["marks"]] == [1_000.0 + 2 * HOUR]


def test_marks_from_before_the_console_stand_at_the_newest_event_of_their_release() -> None:
    """Records older than the console get their event time from the manifests."""
    page = ConsolePage(PIPELINE)
    old = written(*release(1, trained_through=700.0), run_report(None), at=NOW - HOUR)
    page.take(records("examples", example(5)), NOW)
    page.take(old, NOW)
    assert [mark["at"] for mark in page.history.marks()] == [700.0]


def test_examples_of_another_declaration_are_counted_and_not_measured() -> None:
    """Scores or labels that do not fit the declaration are counted, and the page goes on."""
    page = ConsolePage(PIPELINE)
    odd = msgspec.structs.replace(example(1), scores=[0.1, 0.9])
    page.take(records("examples", odd, msgspec.structs.replace(example(2), label="what?")), NOW)
    page.take(records("examples", b"junk"), NOW)
    page.take_log_state(LogState({}, {}), NOW)
    assert page.sections(NOW)["flow"]["unmeasured"] == 2
    assert page.sections(NOW)["quality"]["metrics"] == ()


def test_facts_on_the_wall_clock_are_those_of_the_retrainer() -> None:
    """A schedule counts from the last run's start, an age from the last published run and the last run's start."""
    page = ConsolePage(people([Age("1h"), Schedule("0 * * * *")]))
    page.take(written(run_report(1, since=1_000.0, at=1_100.0), run_report(None, since=2_000.0, at=2_100.0)), NOW)
    facts = page.facts(10, NOW)
    assert (facts.now, facts.since, facts.created, facts.labels) == (NOW, 2_000.0, 1_100.0, 10)
    assert Age("1h").time(facts) == 2_000.0 + HOUR


def test_facts_on_the_event_clock_are_those_of_the_retrainer() -> None:
    """The clock is the newest label time; a prediction of a later event does not move it."""
    page = ConsolePage(people([Age("1h")], training=Training(clock="event", min_examples=10)))
    assert page.facts(0, NOW).labels == 0
    page.take(records("examples", example(1), example(2)), NOW)
    page.take(records("predictions", prediction(9_999)), NOW)
    assert page.facts(2, NOW)[:4] == (402.0, 401.0, 2, None)
    page.take(written(run_report(1, since=402.0, at=NOW)), NOW)
    assert page.facts(2, NOW)[:4] == (402.0, 402.0, 2, 402.0)


def test_a_run_waits_for_the_least_number_of_examples() -> None:
    """Whatever the triggers say, the page names the labels that are missing for `Training.min_examples`."""
    page = ConsolePage(people([Labels(5)], training=Training(min_examples=50)))
    page.take(records("predictions", prediction(1)), NOW)
    page.take_log_state(LogState({"examples": 30}, {}, 30), NOW)
    assert page.sections(NOW)["status"]["text"].endswith("next retraining after 20 more labels")
    page.take_log_state(LogState({"examples": 50}, {}, 50), NOW)
    assert page.sections(NOW)["status"]["text"].endswith("next retraining now")
