"""The console's view, as a fold over records: what it tells, what it hides, and that it stays small."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from support.console_records import SUBJECT, TASK, example, lent, prediction, release

from tailrace.inference.releases.manifest import (
    alias_record,
)
from tailrace.inference.serving.loader import base_rate_serving
from tailrace.monitoring.console.costs import costs
from tailrace.monitoring.console.dead_letters import ROWS as LETTERS
from tailrace.monitoring.console.history import RELEASES
from tailrace.monitoring.console.page import Flow, View, Waiting
from tailrace.monitoring.console.quality import POINTS, Quality
from tailrace.monitoring.console.tail import ROWS
from tailrace.monitoring.console.verdict import Signs, verdict
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.reports import RunReport, run_record
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, Record

NOW = 1_000_000.0


def records(topic: str, *values: Any, start: int = 0, at: float = NOW) -> list[Record]:
    encoded = [value if isinstance(value, bytes) else msgspec.json.encode(value) for value in values]
    return [Record(topic, 0, start + n, int(at * 1000), b"k", value) for n, value in enumerate(encoded)]


def written(*outs: Out, start: int = 0, at: float = NOW) -> list[Record]:
    return [Record(o.topic, 0, start + n, int(at * 1000), o.key, o.value, o.headers) for n, o in enumerate(outs)]


def report(version: int | None, reason: str = "150 new labels (every 150)") -> Out:
    gate = GateResult(passed=bool(version), reason="log_loss 0.5 against 0.6", metric="log_loss", examples=50)
    return run_record(
        "models",
        RunReport(
            outcome="published" if version else "refused",
            reason=reason, detail="", parent=0, since=0.0, at=0.0, examples=120, fresh=120,
            total_s=2.5, version=version, gate=gate, considered={0: 150},
        ),
    )  # fmt: skip


def test_a_prediction_gets_its_label_when_it_comes() -> None:
    """The tail shows what was predicted, waits for the label, and says whether it was as predicted and how late."""
    view = View(SUBJECT, lent())
    view.take(records("predictions", prediction(1), prediction(2, 0.3)), NOW)
    (second, first) = view.sections(NOW)["tail"]["predicted"]
    assert (first["id"], first["said"], first["release"]) == ("1", "80%", 1)
    assert "label" not in first
    view.take(records("examples", example(1, 0)), NOW)
    tail = view.sections(NOW)["tail"]
    assert tail["predicted"][1]["label"] == 0
    assert tail["predicted"][1]["right"] is False
    assert tail["predicted"][1]["after"] == 300.0
    assert tail["labelled"][0]["id"] == "1"
    assert second["id"] == "2"


def test_masked_fields_are_hidden_wherever_they_stand() -> None:
    """In events, nested ones too, in dead letters that can be read; of others nothing is shown, nor a detail."""
    view = View(SUBJECT, lent(), ["name"])
    view.take(records("predictions", prediction(1)), NOW)
    view.take(records("examples", example(1)), NOW)
    bad = [b'{"name":"Ada","x":"?","in":[{"name":"Ada"}]}', b"Ada {", b'"Ada"', b"\xff Ada"]
    letters = [dead_letter(Malformed(record, "wrong_shape", "not Ada")) for record in records("events", *bad)]
    view.take(written(*letters), NOW)
    shown = msgspec.json.encode(view.sections(NOW)).decode()
    assert "Ada" not in shown
    assert shown.count("•••") >= 6
    assert '\\"in\\":[{\\"name\\":\\"•••\\"}]' in shown


def test_ids_and_labels_can_be_masked() -> None:
    """`id` and `label` are names like others."""
    view = View(SUBJECT, lent(), ["id", "label"])
    view.take(records("predictions", prediction(77)), NOW)
    view.take(records("examples", example(77, 1)), NOW)
    row = view.sections(NOW)["tail"]["labelled"][0]
    assert (row["id"], row["label"], row["event"]["id"]) == ("•••", "•••", "•••")


def test_the_view_stays_small() -> None:
    """However much comes, the page is bounded: rows, points, entries and what is remembered."""
    view = View(SUBJECT, lent())
    sizes = []
    for turn in range(60):
        now = NOW + 20 * turn
        ids = range(500 * turn, 500 * turn + 500)
        view.take(records("predictions", *map(prediction, ids), at=now), now)
        view.take(records("examples", *map(example, ids), at=now), now)
        outs = [out for version in range(5 * turn + 1, 5 * turn + 6) for out in release(version, learned=50)]
        view.take(written(*outs, report(None), start=100 * turn, at=now), now)
        spoiled = (Malformed(r, "null", "") for r in records("events", *[b"{}"] * 40))
        view.take(written(*map(dead_letter, spoiled)), now)
        view.flows(Flow(dict.fromkeys(("events", "examples"), 500 * turn), {"worker": 0}), now)
        sizes.append(len(msgspec.json.encode(view.sections(now))))
    sections = view.sections(now)
    assert len(sections["tail"]["predicted"]) == len(sections["tail"]["labelled"]) == ROWS
    assert len(sections["releases"]["rows"]) == RELEASES
    assert len(sections["letters"]["rows"]) == LETTERS
    assert sections["letters"]["total"] == 60 * 40
    assert sections["releases"]["updates"] == 300
    assert max(sizes[30:]) < 1.2 * min(sizes[30:])
    assert len(view._tail._waiting) <= 2_000


def test_history_is_told() -> None:
    """Updates in a row are one entry, a run has its reason and verdict, what a person did names the person."""
    view = View(SUBJECT, lent())
    view.take(written(*release(1, learned=50), *release(2, learned=60), at=NOW), NOW)
    view.take(written(report(3, "loss rose from 0.4 to 0.6, 200 labels ago"), *release(3), start=10, at=NOW + 1), NOW)
    by_hand = alias_record("models", "champion", 2, "ada", "it was better", 0.0)
    view.take(written(by_hand, start=20, at=NOW + 2), NOW)
    hand, run, updates = view.sections(NOW + 3)["timeline"]
    assert (updates["count"], updates["labels"], updates["first"], updates["last"]) == (2, 110, 1, 2)
    assert (run["title"], run["gate"], run["drift"]) == ("Retrained: release 3", "passed", True)
    assert "loss rose" in run["reason"]
    assert (hand["title"], hand["reason"]) == ("ada made release 2 the champion", "it was better")
    assert [mark["kind"] for mark in view.history.marks()] == ["drift", "operator"]
    assert view.sections(NOW + 3)["releases"]["champion"] == 2


def test_swaps_are_seen_in_predictions() -> None:
    """A swap is when the newest predictions name another release."""
    view = View(SUBJECT, lent())
    view.take(records("predictions", prediction(1, release=0), at=NOW), NOW)
    view.take(records("predictions", prediction(2, release=1), start=1, at=NOW + 1), NOW)
    view.take(records("predictions", prediction(3, release=1), start=2, at=NOW + 2), NOW)
    releases = view.sections(NOW)["releases"]
    assert (releases["serving"], releases["swaps"]) == (1, 1)


def test_rates_and_labels_since_the_last_run() -> None:
    """Rates are of the last seconds; the labels that a run considered do not count for the next."""
    asked: list[Waiting] = []
    view = View(SUBJECT, lent()._replace(upcoming=lambda waiting: asked.append(waiting)))
    view.take(written(report(None)), NOW)
    for second in range(20):
        view.flows(Flow({"events": 100 * second, "examples": 10 * second}, {"worker": 7}), NOW + second)
    flow = view.sections(NOW + 19)["flow"]
    assert flow["rates"] == {"events": 100.0, "examples": 10.0}
    assert flow["lags"] == {"worker": 7}
    assert asked[-1].labels == 190 - 150


def test_the_live_model_is_measured_beside_references() -> None:
    """Live, base rate and the frozen release are scored on the same examples, the frozen one on what came after it."""
    view = View(SUBJECT, lent())
    view.take(records("examples", *(example(n, 1, 0.5) for n in range(10)), at=NOW), NOW)
    view.freeze(base_rate_serving(TASK, 0.5)._replace(release=7), NOW + 5)
    view.take(records("examples", *(example(n, 1, 0.8) for n in range(10, 20)), start=10, at=NOW + 10), NOW)
    live, base, frozen = view.sections(NOW)["quality"]["models"]
    assert live["now"]["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    assert base["now"]["log_loss"] == pytest.approx(-np.log(0.25))
    assert (frozen["label"], frozen["now"]["log_loss"]) == ("v7, frozen", pytest.approx(-np.log(0.5)))
    assert frozen["curves"]["log_loss"][0] is None


def test_examples_of_another_declaration_are_counted_not_measured() -> None:
    """What does not fit the declaration does not end the view."""
    view = View(SUBJECT, lent())
    odd = msgspec.structs.replace(example(1), scores=[0.1, 0.9])
    view.take(records("examples", odd, msgspec.structs.replace(example(2), label="what?")), NOW)
    view.take(records("examples", b"junk"), NOW)
    view.flows(Flow({}, {}), NOW)
    assert view.sections(NOW)["flow"]["unmeasured"] == 2
    assert view.sections(NOW)["quality"]["metrics"] == ()


def test_a_curve_keeps_its_sums_when_points_are_joined() -> None:
    """However long it runs, it has at most POINTS points, and the mean over all is exact."""
    quality = Quality(lambda scores, targets: {"loss": scores[:, 0].astype(np.float64)})
    rng = np.random.default_rng(1)
    values = rng.random(5_000).astype(np.float32)
    for n, value in enumerate(values):
        quality.take(1000.0 + n, {"live": np.array([[value]])}, np.zeros(1, np.float32))
    section = quality.section({"live": "live"})
    assert POINTS / 2 < len(section["at"]) <= POINTS
    assert quality.count("live") == 5_000
    assert quality.newest("live", window=10_000) == {"loss": pytest.approx(float(values.mean()), abs=1e-6)}
    assert section["models"][0]["curves"]["loss"][-1] == pytest.approx(0.5, abs=0.05)


FINE = Signs(None, 0, 0.1, 14, 7_200.0, None, "next retraining in 8 m")


@pytest.mark.parametrize(
    ("signs", "state", "text"),
    [
        (FINE, "healthy", "healthy: v14 live for 2 h, next retraining in 8 m"),
        (FINE._replace(champion=0, upcoming=None), "healthy", "healthy: the base rate is live until the first release"),
        (FINE._replace(silent_s=None), "waiting", "waiting for the first event"),
        (FINE._replace(silent_s=None, waiting=5), "waiting", "stalled: 5 events wait, none was predicted yet"),
        (FINE._replace(silent_s=60.0, waiting=1_204), "trouble", "1,204 events wait, none was predicted for 1 m"),
        (FINE._replace(silent_s=9_999.0), "healthy", "v14 live"),
        (FINE._replace(worse="worse than the base rate"), "trouble", "degraded: v14 live, worse than the base rate"),
        (FINE._replace(problem="no broker answers", waiting=9), "trouble", "no broker answers"),
    ],
)
def test_the_verdict_is_the_worst_that_is_true(signs: Signs, state: str, text: str) -> None:
    """One sentence: what is wrong before what is fine."""
    found = verdict(signs)
    assert found.state == state
    assert text in found.text


METRICS = """
# TYPE tailrace_events_total counter
tailrace_events_total{outcome="predicted"} 2000000.0
# TYPE tailrace_energy_joules_total counter
tailrace_energy_joules_total{phase="inference",source="estimate"} 50.0
tailrace_energy_joules_total{phase="training",source="estimate"} 0.0
# TYPE tailrace_cost_total counter
tailrace_cost_total{phase="inference",currency="EUR"} 0.5
# TYPE tailrace_compute_seconds_total counter
tailrace_compute_seconds_total{phase="inference",device="cpu"} 10.0
"""
RETRAINER = """
# TYPE tailrace_energy_joules_total counter
tailrace_energy_joules_total{phase="training",source="rapl"} 300.0
# TYPE tailrace_retrain_runs_total counter
tailrace_retrain_runs_total{outcome="published"} 2.0
tailrace_retrain_runs_total{outcome="rejected"} 9.0
# TYPE tailrace_updates_total counter
tailrace_updates_total{outcome="published"} 4.0
tailrace_updates_total{outcome="failed"} 1.0
"""


def test_costs_are_summed_over_roles() -> None:
    """What roles measured is put side by side, a training being one that was published; what nobody measured is None,
    not nought."""
    phases = costs([METRICS, RETRAINER])["phases"]
    inference, training = phases["inference"], phases["training"]
    assert (inference["joules"], inference["joules_each"], inference["sources"]) == (50.0, 25.0, ["estimate"])
    assert (inference["cost_each"], inference["currency"], inference["cpu_s"]) == (0.25, "EUR", 10.0)
    assert (training["joules"], training["joules_each"], training["sources"]) == (300.0, 50.0, ["rapl"])
    assert (training["cost"], inference["gpu_s"]) == (None, None)
    assert costs([])["phases"]["training"]["joules"] is None
