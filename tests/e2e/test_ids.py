"""Ids of all kinds through the whole loop: whole numbers, texts and UUIDs, in events, labels, files and commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from support.project import Project

from tailrace import DeclarationError, Event, EventTime, Key, Label, Number, Pipeline, UuidKey
from tailrace.declaration.event import KeyField, schema_of
from tailrace.streams.log.records import Out
from tailrace.testing import Harness

UPPER, LOWER = "0F8FAD5B-D9CB-469F-A165-70867728950E", "0f8fad5b-d9cb-469f-a165-70867728950e"


class Order(Event):
    """An event whose id is a text or a whole number."""

    id: Key
    at: EventTime
    amount: Number


class Payment(Event):
    """An event whose id is a UUID."""

    id: UuidKey
    at: EventTime
    amount: Number


def pipeline(event: type[Event], *, rekey: bool = False) -> Pipeline:
    return Pipeline("ids", event=event, label=Label("bad", wait="1h", rekey=rekey), online=False)


@pytest.mark.parametrize("rekey", [False, True])
@pytest.mark.parametrize(
    ("event", "sent", "labelled", "text"),
    [
        (Order, 7, 7, "7"),
        (Order, 7, "7", "7"),
        (Order, "7", 7, "7"),
        (Order, -(2**63), str(-(2**63)), str(-(2**63))),
        (Order, "é 😀", "é 😀", "é 😀"),
        (Payment, UPPER, LOWER, LOWER),
        (Payment, LOWER.replace("-", ""), UPPER, LOWER),
    ],
)
def test_an_id_and_its_label_meet(event: type[Event], sent: Any, labelled: Any, text: str, rekey: bool) -> None:
    """7 and "7" are one id, and all spellings of a UUID; predictions and examples have its text."""
    with Harness(pipeline(event, rekey=rekey)) as kit:
        kit.publish_untrained()
        kit.send({"id": sent, "at": kit.clock.now, "amount": 1.0})
        kit.label(labelled, True)
        kit.run_until_idle()
        assert [prediction.id for prediction in kit.predictions()] == [text]
        assert [(example.id, example.label) for example in kit.examples()] == [(text, True)]
        assert not kit.dead_letters()
        with kit.follow() as live:
            assert live.predict([{"id": sent, "at": 1.0, "amount": 1.0}]).release == 1


@pytest.mark.parametrize("id", [True, 7.0, 7.5, None, "", 2**63, [], "x" * 1_025])
def test_what_is_no_id_is_refused_by_name(id: Any) -> None:
    """Neither an event nor a label with such an id is used; the dead letters name the field."""
    with Harness(pipeline(Order)) as kit:
        kit.send({"id": id, "at": kit.clock.now, "amount": 1.0}, {"id": "fine", "at": kit.clock.now, "amount": 1.0})
        kit.label("fine", True)
        kit._write(_labels(kit, id))
        kit.run_until_idle()
        assert [prediction.id for prediction in kit.predictions()] == ["fine"]
        letters = kit.dead_letters()
        assert [letter.reason for letter in letters] == ["wrong_shape", "wrong_shape"]
        assert all("$.id" in letter.detail for letter in letters)


def _labels(kit: Harness, id: Any) -> list[Any]:
    return [Out(kit.pipeline.topics.labels, b"key", json.dumps({"id": id, "label": True}).encode())]


class Line(Event):
    """An event whose id is an order and a line."""

    order: Key
    line: Key
    at: EventTime
    amount: Number


class Plain(Event):
    """An event without an id."""

    at: EventTime
    amount: Number


@pytest.mark.parametrize("rekey", [False, True])
def test_several_fields_are_one_id(rekey: bool) -> None:
    """The id is the values joined by ":", escaped so that no two pairs have one id; labels have the same fields."""
    label = Label("bad", wait="1h", rekey=rekey, fields={"line": "row"})
    pairs: list[tuple[str | int, str | int]] = [("a", 1), ("a:1", 2), ("a", "1:2"), ("b\\", ":"), (7, 7)]
    with Harness(Pipeline("ids", event=Line, label=label, online=False)) as kit:
        kit.send(*({"order": order, "line": line, "at": kit.clock.now, "amount": 1.0} for order, line in pairs))
        for pair in pairs:
            kit.label(pair, True)
        kit.run_until_idle()
        ids = ["a:1", "a\\:1:2", "a:1\\:2", "b\\\\:\\:", "7:7"]
        assert sorted(prediction.id for prediction in kit.predictions()) == sorted(ids)
        assert sorted(example.id for example in kit.examples()) == sorted(ids)
        assert not kit.dead_letters()


def test_without_a_key_the_place_of_the_record_is_the_id() -> None:
    """Each record is an event of its own: topic-partition-offset, by which its label can name it."""
    with Harness(Pipeline("ids", event=Plain, label=Label("bad", wait="1h"), online=False), partitions=1) as kit:
        kit.send(*({"at": kit.clock.now, "amount": 1.0} for _ in range(3)))
        kit.label("ids.events-0-1", True)
        kit.run_until_idle()
        assert [prediction.id for prediction in kit.predictions()] == [f"ids.events-0-{n}" for n in range(3)]
        assert [example.id for example in kit.examples()] == ["ids.events-0-1"]


class Optional(Event):
    """An event whose key may be null."""

    id: Key | None = None


class Real(Event):
    """An event whose key is a real number."""

    id: Annotated[float, KeyField()]


def test_a_field_that_cannot_be_an_id_is_refused_in_the_declaration() -> None:
    """An optional key, and one of another type, are errors of the declaration that name the field."""
    for event, odd in ((Optional, "NoneType"), (Real, "float")):
        with pytest.raises(DeclarationError, match=rf"{event.__name__}\.id may be {odd}: an id is a text or a whole"):
            schema_of(event)


PIPELINE = """
from tailrace import Event, EventTime, Key, Label, Number, Pipeline

class Row(Event):
    id: Key
    at: EventTime
    level: Number

pipeline = Pipeline("rows", event=Row, label=Label("hot", wait="1h"), online=False)
"""


def test_rows_of_two_files_have_different_ids_and_a_second_send_is_told(tmp_path: Path) -> None:
    """Without an id column the id is the file's name and the row's number; `send` says when a file was sent before, and
    `explain` finds rows with whole numbers as ids."""
    project = Project(tmp_path)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    for name, column in (("a.csv", ""), ("b.csv", ""), ("c.csv", "id,")):
        rows = [f"{f'{n},' if column else ''}{1_767_225_600 + n},{n},1" for n in range(3)]
        (tmp_path / name).write_text("\n".join([f"{column}at,level,hot", *rows, ""]))
    options = ("--label", "hot", "--time", "at")
    for name in ("a.csv", "b.csv", "c.csv"):
        sent = project.json("send", name, *options)
        assert (sent["events"], sent["labels"], sent["sent_before"]) == (3, 3, None)
    again = project.start("send", "a.csv", *options)
    _, told = again.communicate(timeout=60)
    assert "a.csv was sent before" in told
    assert project.json("send", "a.csv", *options, "--only", "labels")["sent_before"] > 1_700_000_000
    ids = {json.loads(line)["value"]["id"] for line in project.run("tail", "events", "-n", "20", "--json").splitlines()}
    assert ids == {f"{name}:{n}" for name in ("a.csv", "b.csv") for n in range(3)} | {"0", "1", "2"}
    assert project.json("explain", "2")["id"] == "2"
