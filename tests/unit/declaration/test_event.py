"""Event classes: keyword-only fields by default, at run time and for type checkers."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import tailrace
from tailrace import Category, Event, EventTime, Key, Number

OPTIONAL_FIRST = """
from typing import Annotated

from tailrace import Buckets, Category, Event, Key, Label, Number, Pipeline, data, triggers, Training
from tailrace.triggers import Due, Facts, Trigger


class Weekday:
    def due(self, facts: Facts) -> Due | str | None:
        return "Monday" if facts.labels else None


class Flight(Event):
    id: Key
    gust: Number | None = None
    carrier: Category
    tail: Annotated[Category, Buckets(16_384)]
    gate: Annotated[str, Buckets(64)] | None = None


class Charter(Flight):
    seats: Number


flight = Charter(id="a", carrier="UA", tail="N1", seats=9.0)
retrain: list[Trigger] = [triggers.Labels(500), triggers.Drift(effect=0.2), Weekday()]
pipeline = Pipeline("p", event=Charter, label=Label("late"), retrain=retrain, training=Training(data=data.Recency(5)))
"""
WRONG = """
Flight(id="a", carrier="UA")
Flight("a", carrier="UA", tail="N1")
"""


class Order(Event):
    """An event with an optional field before a required one."""

    id: Key
    note: str | None = None
    amount: Number


class Paid(Order):
    """A subclass with another required field."""

    at: EventTime
    country: Category = "NL"


def test_a_required_field_may_follow_an_optional_one() -> None:
    """Neither the class nor its subclasses need kw_only=True."""
    paid = Paid(id="a", amount=2.0, at=5.0)
    assert (paid.note, paid.country) == (None, "NL")
    assert msgspec.json.decode(b'{"id":"a","amount":2,"at":5}', type=Paid) == paid
    with pytest.raises(TypeError, match="positional"):
        Order("a", 2.0)  # type: ignore[call-arg, arg-type]


def test_events_are_ordinary_structs() -> None:
    """Conversion, encoding, copies, pickles and schemas work as for any msgspec Struct."""
    order = msgspec.convert({"id": "a", "amount": 2.0}, Order)
    assert [copy.copy(order), pickle.loads(pickle.dumps(order)), msgspec.structs.replace(order)] == [order] * 3
    assert msgspec.json.encode(order) == b'{"id":"a","note":null,"amount":2.0}'
    assert msgspec.json.schema(Order)["$defs"]["Order"]["required"] == ["id", "amount"]


def test_the_old_spelling_goes_on_working() -> None:
    """`class X(Event, kw_only=True)` gives the same class, and a DeprecationWarning with the new spelling, here."""
    with pytest.warns(DeprecationWarning, match=r"write `class Old\(Event\)`") as warned:

        class Old(Event, kw_only=True):
            id: Key
            note: str | None = None
            amount: Number

    assert warned[0].filename == __file__
    assert Old(id="a", amount=1.0).note is None


def test_options_of_structs_are_kept() -> None:
    """Other options of msgspec go through, `kw_only=False` among them."""

    class Point(Event, frozen=True, kw_only=False):  # type: ignore[misc]
        id: Key
        x: Number

    assert Point("a", 1.0).x == 1.0
    with pytest.raises(AttributeError):
        Point("a", 1.0).x = 2.0  # type: ignore[misc]


def test_type_checkers_agree(tmp_path: Path) -> None:
    """mypy --strict accepts a declaration with an optional field before a required one, and finds wrong calls."""
    pytest.importorskip("mypy")
    fine, wrong = tmp_path / "fine.py", tmp_path / "wrong.py"
    fine.write_text(OPTIONAL_FIRST)
    wrong.write_text(OPTIONAL_FIRST + WRONG)
    config = tmp_path / "mypy.ini"  # torch's modules take most of a minute, and a declaration names none of its types
    config.write_text("[mypy]\nstrict = true\nfollow_imports = silent\n[mypy-torch.*]\nfollow_imports = skip\n")
    search = {**os.environ, "MYPYPATH": str(Path(tailrace.__file__).parents[1])}  # an editable install may be a finder
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(config),
        "--cache-dir",
        str(tmp_path / "cache"),
        "--no-error-summary",
    ]
    accepted = subprocess.run(
        [*command, str(fine)], capture_output=True, text=True, cwd=tmp_path, env=search, check=False
    )
    assert (accepted.stdout, accepted.returncode) == ("", 0)
    refused = subprocess.run(
        [*command, str(wrong)], capture_output=True, text=True, cwd=tmp_path, env=search, check=False
    )
    assert [line.rpartition(": error: ")[2] for line in refused.stdout.splitlines()] == [
        'Missing named argument "tail" for "Flight"  [call-arg]',
        'Too many positional arguments for "Flight"  [call-arg]',
    ]
