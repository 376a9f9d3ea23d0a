"""The score step: each event gives one record, a prediction or a dead letter."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from tailrace.declaration.event import Event, EventTime, Key, schema_of
from tailrace.declaration.features import Category, Number, feature
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.columns import Floats
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.serving.live_model import LiveModel
from tailrace.inference.serving.loader import Loader, Serving, base_rate_serving, scorer
from tailrace.inference.serving.scoring import Scored, ScoreStep
from tailrace.streams.log.base import Batch, Topic
from tailrace.streams.log.codec import encode
from tailrace.streams.log.dead_letters import DETAIL, REASON, header
from tailrace.streams.log.records import Out, Prediction, Record
from tailrace.streams.log.sqlite.log import SqliteLog

NOW = 1_700_000_000.0
EVENTS, PREDICTIONS = "flights.events", "flights.predictions"


class Flight(Event):
    id: Key
    at: EventTime
    distance: Number
    gust: Number | None = None
    carrier: Category = "UA"


class Derived(Flight):
    @feature
    def per_gust(self) -> float | None:
        return None if self.gust is None else self.distance / self.gust


class Fixed:
    """Live model with one fixed release."""

    def __init__(self, score: Callable[[Inputs], Floats], release: int = 7) -> None:
        self._serving = Serving(release, score)

    def current(self) -> Serving:
        return self._serving


def first_number(inputs: Inputs) -> Floats:
    """Score each row by its first number."""
    return inputs.numbers[:, :1]


def step(event: type[Event] = Flight, score: Callable[[Inputs], Floats] = first_number, **options: object) -> ScoreStep:
    live = Fixed(score)
    return ScoreStep(schema_of(event), Features.of(event), live, PREDICTIONS, clock=lambda: NOW, **options)  # type: ignore[arg-type]


def record(i: int, value: bytes | None) -> Record:
    return Record(EVENTS, 3, i, 123, b"key", value, (("h", b"x"),))


def batch(*events: Event | bytes | None) -> Batch:
    return Batch([record(i, encode(event) if isinstance(event, Event) else event) for i, event in enumerate(events)])


def prediction(out: Out) -> Prediction:
    assert out.topic == PREDICTIONS
    return msgspec.json.decode(out.value or b"", type=Prediction)


def letter(out: Out) -> tuple[int, str]:
    """Offset of the source and reason."""
    assert out.topic == f"{EVENTS}.dlq"
    assert (out.key, out.headers[0], out.timestamp) == (b"key", ("h", b"x"), 123)
    found = Record(out.topic, 0, 0, 0, out.key, out.value, out.headers)
    return int(header(found, "tailrace.source").split("/")[2]), header(found, REASON)


def test_every_event_is_predicted_in_order() -> None:
    """A prediction holds id, event time, release, scores, event and source, and its key is the event id."""
    events = [Flight(id=f"é{i}", at=NOW - i, distance=i / 4) for i in range(5)]
    outs = step()(batch(*events))
    found = [prediction(out) for out in outs]
    assert [p.id for p in found] == [e.id for e in events]
    assert [p.time for p in found] == [NOW - i for i in range(5)]
    assert [p.scores for p in found] == [[i / 4] for i in range(5)]
    assert [(p.source.partition, p.source.offset) for p in found] == [(3, i) for i in range(5)]
    assert [msgspec.json.decode(p.features, type=Flight) for p in found] == events
    assert {p.release for p in found} == {7}
    assert {p.derived for p in found} == {None}
    assert [(out.key, out.timestamp) for out in outs] == [(str(e.id).encode(), None) for e in events]


def test_a_prediction_belongs_to_the_trace_of_its_event() -> None:
    """W3C trace headers are copied to the prediction, other headers are not."""
    trace = (("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tracestate", b"a=1"))
    events = [encode(Flight(id=str(n), at=NOW, distance=1.0)) for n in range(3)]
    headers = [(("h", b"x"), *trace), (), (("h", b"x"),)]
    records = [Record(EVENTS, 0, n, 123, None, events[n], headers[n]) for n in range(3)]
    assert [out.headers for out in step()(Batch(records))] == [trace, (), ()]
    bare = [Record(EVENTS, 0, n, 123, None, events[n]) for n in range(3)]
    assert [out.headers for out in step()(Batch(bare))] == [(), (), ()]


@pytest.mark.parametrize("event", [Flight, Derived])
def test_the_wire_format_is_that_of_prediction(event: type[Flight]) -> None:
    """Decoding as Prediction and encoding again gives the same bytes."""
    given = [
        event(id="a", at=datetime(2013, 1, 1, tzinfo=UTC), distance=1.0),
        event(id="b", at=NOW, distance=2.0, gust=4.0),
    ]
    for out in step(event)(batch(*given)):
        assert encode(prediction(out)) == out.value


def test_user_functions_are_computed_once_and_travel() -> None:
    """The values of @feature methods, missing ones included, are stored in the prediction."""
    events = [Derived(id="a", at=NOW, distance=8.0, gust=4.0), Derived(id="b", at=NOW, distance=8.0)]
    assert [prediction(out).derived for out in step(Derived)(batch(*events))] == [[2.0], [None]]


def test_what_cannot_be_decoded_is_a_dead_letter() -> None:
    """A bad record becomes a dead letter with its reason, behind the predictions, and affects no other."""
    good = Flight(id="a", at=NOW, distance=1.0)
    late = Flight(id="b", at=NOW + 200_000, distance=1.0)
    outs = step()(batch(None, good, b"{", b"\xff", late, b'{"id":"x"}', good))
    assert [prediction(out).source.offset for out in outs[:2]] == [1, 6]
    expected = [(0, "null"), (2, "invalid_json"), (3, "not_utf8"), (5, "wrong_shape"), (4, "future_time")]
    assert sorted(expected) == sorted(letter(out) for out in outs[2:])


def test_an_exception_of_a_user_function_costs_one_event() -> None:
    """A division by zero becomes a dead letter with that reason; the other events are scored."""
    events = [Derived(id=str(i), at=NOW, distance=6.0, gust=float(i)) for i in range(4)]
    outs = step(Derived)(batch(*events))
    found = [prediction(out) for out in outs[:3]]
    assert [(p.id, p.derived, p.source.offset) for p in found] == [("1", [6.0], 1), ("2", [3.0], 2), ("3", [2.0], 3)]
    assert [letter(out) for out in outs[3:]] == [(0, "features")]
    detail = dict(outs[3].headers)[DETAIL]
    assert detail is not None
    assert b"ZeroDivisionError" in detail


def test_if_every_event_fails_nothing_is_predicted() -> None:
    """A batch in which every event fails gives only dead letters."""
    events = [Derived(id=str(i), at=NOW, distance=6.0, gust=0.0) for i in range(3)]
    assert [letter(out) for out in step(Derived)(batch(*events))] == [(i, "features") for i in range(3)]


def test_a_non_finite_score_is_a_dead_letter() -> None:
    """JSON has no NaN: a prediction with one is not written, the others are."""
    events = [Derived(id=str(i), at=NOW, distance=float(i), gust=2.0) for i in range(4)]

    def score(inputs: Inputs) -> Floats:
        scores = first_number(inputs).copy()
        scores[1:3] = [[np.nan], [np.inf]]
        return scores

    outs = step(Derived, score)(batch(*events))
    assert [(prediction(out).id, prediction(out).derived) for out in outs[:2]] == [("0", [0.0]), ("3", [1.5])]
    assert [letter(out) for out in outs[2:]] == [(1, "non_finite_score"), (2, "non_finite_score")]


def test_an_error_of_the_model_is_raised() -> None:
    """An error of the module is raised, and does not turn events into dead letters."""

    def broken(inputs: Inputs) -> Floats:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        step(Flight, broken)(batch(Flight(id="a", at=NOW, distance=1.0)))


class Flattening(torch.nn.Linear):
    """Module that fails for an empty batch, because a view of no rows is ambiguous."""

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(numbers.nan_to_num().view(len(numbers), -1))


def test_a_batch_without_a_usable_event_does_not_reach_the_model() -> None:
    """If no event is usable, the module is not called."""
    flattening = scorer(Flattening(2, 1), Task(Kind.BINARY))
    outs = step(Flight, flattening)(batch(b"{", None))
    assert [letter(out) for out in outs] == [(0, "invalid_json"), (1, "null")]


def test_an_empty_batch_gives_nothing() -> None:
    """An empty batch gives no records and no error."""
    assert step(Derived)(Batch([])) == []


def test_the_hook_reports_the_cost_of_a_batch() -> None:
    """The report holds release, counts, reasons, seconds of each stage and event times."""
    seen: list[Scored] = []
    events = [Flight(id=str(i), at=NOW - i, distance=1.0) for i in range(3)]
    step(on_batch=seen.append)(batch(*events, b"{"))
    (scored,) = seen
    assert (scored.release, scored.rows, max(scored.times)) == (7, 3, NOW)
    assert [bad.reason for bad in scored.malformed] == ["invalid_json"]
    assert min(scored.decode_s, scored.features_s, scored.predict_s, scored.encode_s) > 0


def test_release_0_predicts_the_base_rate() -> None:
    """Before anything was learned, every class gets its declared share."""
    serving = base_rate_serving(Task(Kind.MULTICLASS, ("a", "b")), [0.75, 0.25])
    outs = step(Flight, serving.score)(batch(*(Flight(id=str(i), at=NOW, distance=1.0) for i in range(2))))
    assert [json.loads(out.value or b"")["scores"] for out in outs] == [[0.75, 0.25]] * 2


def test_a_live_model_fits_the_step(tmp_path: Path) -> None:
    """A LiveModel has the interface that the step needs."""
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic("flights.models", compacted=True)])
    features = Features.of(Flight)
    loader = Loader(ModelSpec(features, Task(Kind.BINARY)), trusted=TrustedKeys([]))
    with LiveModel(log, "flights.models", loader) as live:
        scoring = ScoreStep(schema_of(Flight), features, live, PREDICTIONS, clock=lambda: NOW)
        (out,) = scoring(batch(Flight(id="a", at=NOW, distance=1.0)))
    log.close()
    assert prediction(out).scores == [0.5]
    assert prediction(out).release == 0
