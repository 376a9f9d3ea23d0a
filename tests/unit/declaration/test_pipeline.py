"""Pipeline declarations: their validation, their topics and their representation."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from tailrace import Buckets, Category, Cyclic, Flag, Gate, Number, Training, feature, triggers
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
    ("label", "message"),
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
    ],
)
def test_an_invalid_label_is_refused_when_it_is_declared(label: dict[str, Any], message: str) -> None:
    """Each mistake raises a DeclarationError that names the fix."""
    with pytest.raises(DeclarationError, match=message):
        Label("y", **label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "P p"}, "cannot name a pipeline"),
        ({"label": "y"}, r"write Label\("),
        ({"retrain": Labels(5)}, r"retrain=\[triggers.Labels"),
        ({"retrain": ["hourly"]}, r"retrain=\[triggers.Labels"),
        ({"model": 3}, "makes the nn.Module"),
        ({"topics": {"evnts": "a"}}, "unknown topics"),
        ({"gate": Gate("squared_error")}, "cannot judge a binary label"),
        ({"label": Label("y", fields={"ident": "flight"})}, "a label record has id, label and time"),
        ({"label": Label("y", wait="12 parsecs")}, "is not a duration"),
        ({"label": Label("y", wait=-5)}, "must be above 0"),
        ({"training": Training(start="transfer")}, "need online=False"),
        ({"training": Training(frozen=("body.*",))}, "need online=False"),
    ],
)
def test_an_invalid_pipeline_is_refused_when_it_is_declared(options: dict[str, Any], message: str) -> None:
    """Each mistake in a pipeline raises a DeclarationError that names the fix."""
    given = {"event": Row, "label": Label("y"), **options}
    with pytest.raises(DeclarationError, match=message):
        Pipeline(given.pop("name", "rows"), **given)


def test_durations() -> None:
    """Numbers are seconds; units are milliseconds to weeks."""
    assert [seconds(d) for d in (0.5, "1.5m", "12h", "2w", "250 ms")] == [0.5, 90.0, 43_200.0, 1_209_600.0, 0.25]


@pytest.mark.parametrize(("rekey", "extra"), [(False, set()), (True, {"rows.labels-by-id", "rows.labels-by-id.dlq"})])
def test_every_topic_that_is_read_has_one_for_dead_letters(rekey: bool, extra: set[str]) -> None:
    """Dead-letter topics are created with the others, because not every log creates a topic by itself."""
    created = topology(Pipeline("rows", event=Row, label=Label("y", rekey=rekey)), 3)
    names = {"events", "predictions", "labels", "examples", "models", "events.dlq", "labels.dlq", "predictions.dlq"}
    assert {f"rows.{name}" for name in names} | extra == {topic.name for topic in created}
    assert {1, 3} == {topic.partitions for topic in created}


def test_a_trigger_class_that_was_not_called_is_refused() -> None:
    """`retrain=[Drift]`, without parentheses, raises a DeclarationError."""
    with pytest.raises(DeclarationError, match="write a list of triggers"):
        Pipeline("rows", event=Row, label=Label("y"), retrain=[triggers.Drift])  # type: ignore[list-item]


class Visit(Event):
    """An event with features of all kinds."""

    id: Key
    country: Category
    page: Annotated[Category, Buckets(64)]
    hour: Annotated[float, Cyclic(24)]
    new: Flag = False
    referrer: str = ""

    @feature
    def long_referrer(self) -> bool:
        """A computed feature."""
        return len(self.referrer) > 10


def test_the_representation_says_what_was_declared() -> None:
    """`repr(pipeline)` shows the features in use with their encoding, and each option that is not the default."""
    shown = repr(Pipeline("visits", event=Visit, label=Label("bought", wait="2d")))
    assert shown.splitlines() == [
        "Pipeline(",
        "    'visits',",
        "    event=Visit,",
        "    features=[country: Category(1024), page: Category(64), hour: Cyclic(24), new: Flag, long_referrer()],",
        "    label=Label(name='bought', wait='2d'),",
        ")",
    ]
    tuned = Pipeline(
        "rows",
        event=Row,
        label=Label("y"),
        retrain=[triggers.Labels(500), triggers.Drift(effect=0.2)],
        online=False,
        gate=Gate(confidence=0.9),
        training=Training(epochs=5),
        model=dict,  # type: ignore[arg-type]
        topics={"events": "rows-v2"},
    )
    assert repr(tuned).splitlines()[3:-1] == [
        "    features=[x: Number],",
        "    label=Label(name='y'),",
        "    retrain=[Labels(count=500), Drift(effect=0.2)],",
        "    online=False,",
        "    gate=Gate(confidence=0.9),",
        "    training=Training(epochs=5),",
        "    model=dict,",
        "    topics={'events': 'rows-v2'},",
    ]
