"""Decoding of examples: those of an earlier declaration are used where they fit, and reported where they do not."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from tailrace.declaration.event import Event, Key
from tailrace.declaration.features import Number, Vector, feature
from tailrace.declaration.task import Kind, LabelValue, Task
from tailrace.inference.models.encoding import Features
from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.selection.examples import ExampleDecoder
from tailrace.streams.log.codec import encode
from tailrace.streams.log.records import Example, Record, Source


class Before(Event):
    id: Key
    x: Number
    v: Annotated[list[float], Vector(2)]


class Today(Before):
    """A later declaration with a new required field and two functions."""

    y: Number

    @feature
    def ratio(self) -> float:
        return self.x / self.y

    @feature
    def difference(self) -> float:
        return self.x - self.y


DECODER = ExampleDecoder(ModelSpec(Features.of(Today), Task(Kind.BINARY)))


def record(n: int, event: Any, label: LabelValue = True, **fields: Any) -> Record:
    """An example as a record of its topic."""
    example = Example(str(n), 10.0 + n, 20.0 + n, label, 3, [0.5], msgspec.Raw(encode(event)), Source(0, n))
    return Record("examples", 1, n, 0, None, encode(msgspec.structs.replace(example, **fields)))


def today(n: int, y: float = 2.0) -> Today:
    return Today(id=str(n), x=float(n), v=[0.0, 0.0], y=y)


def test_an_example_becomes_a_row() -> None:
    """A row has the example's place, times and target, and the event's own bytes."""
    (row,), _, malformed = DECODER.rows([record(4, today(4))])
    assert malformed == []
    assert (row.partition, row.offset, row.time, row.label_time, row.target) == (1, 4, 14.0, 24.0, 1.0)
    assert (row.release, row.scores, row.derived) == (3, [0.5], [2.0, 2.0])
    assert msgspec.json.decode(row.features, type=Today) == today(4)


@pytest.mark.parametrize("recorded", [None, [9.0], [9.0, 9.0], [9.0, 9.0, 9.0]])
def test_values_of_functions_are_computed_anew(recorded: list[float] | None) -> None:
    """User functions are called again, whatever values the record has of an earlier declaration."""
    rows, _, malformed = DECODER.rows([record(n, today(n), derived=recorded) for n in range(3)])
    assert malformed == []
    assert [row.derived for row in rows] == [[0.0, -2.0], [0.5, -1.0], [1.0, 0.0]]


def test_what_does_not_fit_costs_only_itself() -> None:
    """An example with a missing field, a wrong length, a raising function or an unknown label is reported alone."""
    records = [
        record(0, today(0)),
        record(1, Before(id="1", x=1.0, v=[0.0, 0.0])),
        record(2, {**msgspec.to_builtins(today(2)), "v": [1.0]}),
        record(3, today(3, y=0.0)),
        record(4, today(4), label="maybe"),
        Record("examples", 1, 5, 0, None, b"{"),
        record(6, today(6)),
    ]
    rows, _, malformed = DECODER.rows(records)
    assert [row.offset for row in rows] == [0, 6]
    found = {bad.record.offset: (bad.reason, bad.detail) for bad in malformed}
    assert [found[offset][0] for offset in range(1, 6)] == ["unfit"] * 4 + ["invalid_json"]
    said = ("required field `y`", "v: expected 2 numbers", "ZeroDivisionError", "neither true nor false")
    for offset, words in enumerate(said, 1):
        assert words in found[offset][1]


def test_an_event_without_functions_has_no_derived_values() -> None:
    """Values of functions of an earlier declaration are not used."""
    decoder = ExampleDecoder(ModelSpec(Features.of(Before), Task(Kind.BINARY)))
    (row,), _, _ = decoder.rows([record(0, Before(id="0", x=1.0, v=[0.0, 0.0]), derived=[9.0])])
    assert row.derived is None
