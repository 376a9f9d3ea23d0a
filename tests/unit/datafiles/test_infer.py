"""Inference of a declaration: feature kinds, the label, the wait, and generated files that load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tailrace.app.pipeline_file import load_pipeline
from tailrace.datafiles.infer import Inferred, infer
from tailrace.datafiles.read import Columns, replay
from tailrace.datafiles.templates import pipeline_file, pipeline_name
from tailrace.errors import BadData

Row = Mapping[str, Any]


def table(n: int = 200, /, **columns: Any) -> list[Row]:
    """Return `n` rows whose columns are functions of the row number; None is a missing value."""
    values = ({name: column(i) for name, column in columns.items()} for i in range(n))
    return [{name: str(value) for name, value in row.items() if value is not None} for row in values]


def kinds(inferred: Inferred) -> dict[str, str]:
    """Return the kind of each feature column; "?" marks an optional one."""
    return {f.column: f.kind + ("?" if f.optional else "") for f in inferred.fields}


def test_kinds_of_columns() -> None:
    """Numbers, categories, codes and flags are distinguished; missing values make a field optional."""
    inferred = infer(
        table(
            number=lambda i: i * 0.5,
            count=lambda i: i * 3,
            text=lambda i: "abc"[i % 3],
            code=lambda i: i % 7,
            zero_one=lambda i: i % 2,
            flag=lambda i: ("true", "FALSE")[i % 2],
            year=lambda i: 1990 + i % 20,
            gappy=lambda i: None if i % 5 else i / 7,
            label=lambda i: i % 2,
        ),
        Columns(label="label"),
    )
    expected = {
        "number": "number",
        "count": "number",
        "text": "category",
        "code": "category",
        "zero_one": "number",
        "flag": "flag",
        "year": "number",
        "gappy": "number?",
    }
    assert expected == kinds(inferred)


def test_unusable_columns_are_left_out_with_the_reason() -> None:
    """Constants, texts that nearly all differ, further times and dropped columns are left out, each with a reason."""
    inferred = infer(
        table(
            constant=lambda i: "same",
            name=lambda i: f"name {i}",
            seen=lambda i: f"2024-01-01 00:{i % 60:02}:00",
            secret=lambda i: i,
            x=lambda i: i,
            label=lambda i: i % 2,
        ),
        Columns(label="label"),
        drop=["secret"],
    )
    assert kinds(inferred) == {"x": "number"}
    expected = {
        "constant": "always 'same'",
        "name": "text, nearly all values differ",
        "seen": "another time",
        "secret": "--drop",
    }
    assert expected == inferred.left_out


@pytest.mark.parametrize(
    ("label", "kind", "classes", "rate"),
    [
        (lambda i: int(i % 4 == 0), "binary", (), 0.25),
        (lambda i: ("True", "False")[i % 2], "binary", (), 0.5),
        (lambda i: ("up", "down")[i % 2], "multiclass", ("down", "up"), (0.5, 0.5)),
        (lambda i: 10 if i % 4 else 9, "multiclass", (9, 10), (0.25, 0.75)),
        (lambda i: i % 5, "multiclass", (0, 1, 2, 3, 4), (0.2,) * 5),
        (lambda i: i, "regression", (), 99.5),
        (lambda i: i / 2, "regression", (), 49.75),
    ],
)
def test_kinds_of_labels(label: Any, kind: str, classes: tuple[Any, ...], rate: Any) -> None:
    """The values of the label determine its kind, its classes and the base rate."""
    target = infer(table(x=lambda i: i, label=label), Columns(label="label")).target
    assert (kind, classes, rate) == (target.kind, target.classes, target.base_rate)


@pytest.mark.parametrize(
    ("delay", "wait"),
    [(lambda i: 45, "1m"), (lambda i: 50, "2m"), (lambda i: 9e5 * (i == 7), "14d"), (lambda i: 86_400 * 400, "365d")],
)
def test_wait_covers_the_delays(delay: Any, wait: str) -> None:
    """The wait is a round duration that exceeds the longest label delay by a quarter."""
    rows = table(t=lambda i: i, known=lambda i: i + delay(i), x=lambda i: i, label=lambda i: i % 2)
    assert wait == infer(rows, Columns(time="t", label="label", label_time="known")).wait


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(label="gone"), "no column 'gone'"),
        (Columns(id="code", label="label"), "'code' cannot be the id, its values repeat"),
        (Columns(label="constant"), "always '1'"),
        (Columns(label="text"), "200 different texts"),
        (Columns(label="label", id='"x'), "rename the column"),
        (Columns(label="label", time="text", label_time="x"), "a time is ISO 8601"),
    ],
)
def test_unsuitable_columns_are_rejected_by_name(columns: Columns, message: str) -> None:
    """A column that cannot have the given role is rejected; the message names it."""
    rows = table(
        x=lambda i: i,
        code=lambda i: i % 3,
        constant=lambda i: 1,
        text=lambda i: f"n{i}",
        label=lambda i: i % 2,
        **{'"x': lambda i: i},
    )
    with pytest.raises(BadData, match=message):
        infer(rows, columns)


def test_an_empty_file_is_rejected() -> None:
    """A file without rows is rejected."""
    with pytest.raises(BadData, match="no rows"):
        infer([], Columns(label="label"))


AWKWARD = {
    "class": lambda i: "ab"[i % 2],
    "Unit price ($)": lambda i: None if i % 9 == 0 else i * 0.1,
    "3rd": lambda i: i % 4,
    "Number": lambda i: i * 2,
    "field": lambda i: i * 5,
    "id": lambda i: i % 50,
    "über": lambda i: i * 3,
    'quote"\\n': lambda i: i * 3,
    "when": lambda i: f"2024-03-01 {i // 60:02}:{i % 60:02}:00",
    'quote"""': lambda i: "always",
    "y": lambda i: i % 3,
}


def test_a_file_with_awkward_column_names_loads(tmp_path: Path) -> None:
    """Columns named with keywords, spaces, quotes or imported names become fields that read these columns."""
    rows, columns = table(**AWKWARD), Columns(time="when", label="y")
    file = tmp_path / "pipeline.py"
    file.write_text(pipeline_file("awkward", 'odd"""name.csv', infer(rows, columns)), encoding="utf-8")
    pipeline = load_pipeline(str(file))
    assert {"y"}.isdisjoint(pipeline.schema.event.__struct_encode_fields__)
    moments = [moment for moment in replay(rows, pipeline, columns) if moment.kind == "event"]
    assert len({moment.out.key for moment in moments}) == 200
    fields = set(pipeline.schema.event.__struct_encode_fields__)
    assert {"class", "Unit price ($)", "3rd", "Number", "field", "id", "über", "when"} <= fields


def test_label_and_label_time_are_never_features(tmp_path: Path) -> None:
    """The label and its time, which are known later than the event, are not among the features."""
    rows = table(t=lambda i: i, known=lambda i: i + 5, x=lambda i: i, label=lambda i: i % 2)
    inferred = infer(rows, Columns(time="t", label="label", label_time="known"))
    assert kinds(inferred) == {"x": "number"}


def test_generated_files_are_formatted(tmp_path: Path) -> None:
    """The generated pipeline file passes `ruff format --check` and `ruff check`."""
    plain = {name: column for name, column in AWKWARD.items() if '"' not in name}
    text = pipeline_file("awkward", "odd.csv", infer(table(**plain), Columns(time="when", label="y")))
    (tmp_path / "pipeline.py").write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["format", "--isolated", "--check"], ["check", "--isolated"]):
        process = subprocess.run([*ruff, *command, "pipeline.py"], cwd=tmp_path, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(("stem", "name"), [("Flights 2024", "flights_2024"), ("__", "pipeline"), ("a.b", "a_b")])
def test_pipeline_names(stem: str, name: str) -> None:
    """A file name becomes a valid pipeline name."""
    assert name == pipeline_name(stem)


def test_a_column_named_id_becomes_the_key() -> None:
    """A column `id` is the event id if all its values differ; it can be dropped; else it is a feature."""
    distinct = table(id=lambda i: 7 * i, x=lambda i: i * 0.5, label=lambda i: i % 2)
    repeated = table(id=lambda i: i % 50, x=lambda i: i * 0.5, label=lambda i: i % 2)
    gappy = table(id=lambda i: i or None, x=lambda i: i * 0.5, label=lambda i: i % 2)
    inferred = infer(distinct, Columns(label="label"))
    assert (inferred.columns.id, kinds(inferred)) == ("id", {"x": "number"})
    assert infer(distinct, Columns(label="label"), drop=["id"]).left_out == {"id": "--drop"}
    for rows in (repeated, gappy):
        inferred = infer(rows, Columns(label="label"))
        assert inferred.columns.id is None
        assert "id" in kinds(inferred)
