"""The declaration: what is checked before anything runs, and which topics it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace import Gate, Number, Training
from tailrace.declaration.durations import seconds
from tailrace.declaration.event import Event, Key
from tailrace.declaration.label import Label
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import DeclarationError
from tailrace.streams.log.topology import topology
from tailrace.triggers import Labels


class Row(Event):
    id: Key
    x: Number


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"kind": "bin"}, "write binary, multiclass, multilabel, regression"),
        ({"wins": "best"}, "write first, last, max, min, mean"),
        ({"wins": "mean"}, "does not fit a binary label: write first, last, max, min"),
        ({"kind": "multiclass"}, "name its classes"),
        ({"kind": "multiclass", "classes": ["a", "b"], "wins": "max"}, "does not fit a multiclass label"),
        ({"kind": "multiclass", "classes": ["a", "b"], "missing": "c"}, "not one of the 2 declared classes"),
        ({"kind": "multilabel"}, "name its labels, one or more different ones"),
        ({"kind": "multilabel", "classes": ["a", "a"]}, "name its labels, one or more different ones"),
        ({"kind": "multilabel", "classes": ["a"], "wins": "mean"}, "does not fit a multilabel label"),
        ({"kind": "multilabel", "classes": ["a"], "missing": "a"}, "neither a list"),
        ({"missing": "maybe"}, "'maybe' is neither true nor false"),
        ({"base_rate": 3.0}, "must lie between 0 and 1"),
        ({"base_rate": [0.1, 0.2]}, "needs 1"),
        ({"fields": {"ident": "flight"}}, "a label record has id, label and time"),
    ],
)
def test_a_label_that_cannot_work_is_told_when_it_is_declared(label: dict[str, Any], said: str) -> None:
    """Each mistake is a DeclarationError that says what to write."""
    with pytest.raises(DeclarationError, match=said):
        Label("y", **label)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "P p"}, "cannot name a pipeline"),
        ({"label": "y"}, r"write Label\("),
        ({"retrain": Labels(5)}, r"retrain=\[triggers.Labels"),
        ({"retrain": ["hourly"]}, r"retrain=\[triggers.Labels"),
        ({"model": 3}, "makes the nn.Module"),
        ({"topics": {"evnts": "a"}}, "unknown topics"),
        ({"gate": Gate("squared_error")}, "cannot judge a binary label"),
        ({"label": Label("y", wait="12 parsecs")}, "is not a duration"),
        ({"label": Label("y", wait=-5)}, "must be above 0"),
        ({"training": Training(start="transfer")}, "need online=False"),
        ({"training": Training(frozen=("body.*",))}, "need online=False"),
    ],
)
def test_a_pipeline_that_cannot_work_is_told_when_it_is_declared(options: dict[str, Any], said: str) -> None:
    """The same for the pipeline around it."""
    given = {"event": Row, "label": Label("y"), **options}
    with pytest.raises(DeclarationError, match=said):
        Pipeline(given.pop("name", "rows"), **given)


def test_durations() -> None:
    """Numbers are seconds; units are milliseconds to weeks."""
    assert [seconds(d) for d in (0.5, "1.5m", "12h", "2w", "250 ms")] == [0.5, 90.0, 43_200.0, 1_209_600.0, 0.25]


@pytest.mark.parametrize(("rekey", "extra"), [(False, set()), (True, {"rows.labels-by-id", "rows.labels-by-id.dlq"})])
def test_every_topic_that_is_read_has_one_for_dead_letters(rekey: bool, extra: set[str]) -> None:
    """Else the first record that cannot be used would stop its role on a log that makes no topics by itself."""
    created = topology(Pipeline("rows", event=Row, label=Label("y", rekey=rekey)), 3)
    names = {"events", "predictions", "labels", "examples", "models", "events.dlq", "labels.dlq", "predictions.dlq"}
    assert {f"rows.{name}" for name in names} | extra == {topic.name for topic in created}
    assert {1, 3} == {topic.partitions for topic in created}
