"""Reading data files, and the replay of their rows as events and labels."""

from __future__ import annotations

import gzip
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tailrace import Category, Event, EventTime, Flag, Key, Label, Number, Pipeline
from tailrace.datafiles.read import Columns, Moment, instant, replay, replay_labels, rows
from tailrace.errors import BadData


class Trip(Event):
    id: Key
    at: EventTime
    line: Category
    speed: Number | None = None
    express: Flag | None = None


class Reading(Event):
    id: Key
    value: Number


TIMED = Pipeline("trips", event=Trip, label=Label("late"))
TIMES = Columns(time="at", label="late", label_time="known")
PLAIN = Pipeline("readings", event=Reading, label=Label("kind", kind="multiclass", classes=[1, 2, 3]))


def summary(moments: list[Moment]) -> list[tuple[str, str, float]]:
    """Return kind, key and time of each moment."""
    return [(m.kind, (m.out.key or b"").decode(), m.time) for m in moments]


def value(moment: Moment) -> dict[str, Any]:
    """Return the decoded value of a moment's record."""
    decoded: dict[str, Any] = json.loads(moment.out.value or b"")
    return decoded


def trip(at: float, known: float | None = None, late: int | None = 1, **more: Any) -> dict[str, Any]:
    """Return a row of the timed pipeline; None is a missing value."""
    row = {"at": str(at), "line": "7", "late": late, "known": known, **more}
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("name", ["data.csv", "data.csv.gz"])
def test_csv_cells_without_a_value_are_left_out(tmp_path: Path, name: str) -> None:
    """A row maps the header's names to its cells, without empty cells and the usual texts for missing values."""
    text = b'\xef\xbb\xbfa, b,c\n1,,x\n\nNaN,NA,"y,\nz"\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert list(rows(tmp_path / name)) == [{"a": "1", "c": "x"}, {"c": "y,\nz"}]


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    """JSON rows keep numbers and texts, without nulls."""
    (tmp_path / "data.jsonl").write_text('{"a": 1, "b": null}\n\n{"a": "x", "c": [1, 2]}\n')
    assert list(rows(tmp_path / "data.jsonl")) == [{"a": 1}, {"a": "x", "c": [1, 2]}]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """Parquet rows keep numbers, texts, times and lists, without nulls and NaN, across row groups."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    at = datetime(2024, 5, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "at": pa.array([at, at, None], pa.timestamp("ns", "UTC")),
            "n": pa.array([1, None, 3]),
            "x": pa.array([0.5, float("nan"), 2.0]),
            "word": pa.array(["NA", "b", "b"]).dictionary_encode(),
            "day": pa.array([at.date(), None, None]),
            "cost": pa.array([Decimal("1.50"), None, None]),
            "list": pa.array([[1.0, 2.0], None, None]),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    first = {"at": at, "n": 1, "x": 0.5, "day": "2024-05-01", "cost": 1.5, "list": [1.0, 2.0]}
    assert [first, {"at": at, "word": "b"}, {"n": 3, "x": 2.0, "word": "b"}] == list(rows(tmp_path / "a.parquet"))


def test_parquet_rows_are_events_and_labels(tmp_path: Path) -> None:
    """A Parquet file gives the same moments as CSV rows with the same values."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    text = [trip(1e9, 1e9 + 50, speed="2.5"), trip(1e9 + 10, 1e9 + 20, late=0)]
    times = [datetime.fromtimestamp(1e9 + s, UTC) for s in (0, 10, 50, 20)]
    columns = {"at": times[:2], "line": ["7", "7"], "known": times[2:], "late": [1, 0], "speed": [2.5, None]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    moments, expected = list(replay(rows(tmp_path / "a.parquet"), TIMED, TIMES)), list(replay(text, TIMED, TIMES))
    assert summary(expected) == summary(moments)
    assert [m.out.timestamp for m in expected] == [m.out.timestamp for m in moments]
    assert value(moments[0])["speed"] == 2.5


def test_parquet_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow the error names the package to install; a file that is not Parquet is named."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 or not")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(BadData, match=r"pip install 'tailrace\[parquet\]'"):
            list(rows(tmp_path / "a.parquet"))
    pytest.importorskip("pyarrow")
    for name in ("a.parquet", "none.parquet"):
        with pytest.raises(BadData, match=rf"cannot read .*{name}"):
            list(rows(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n1\n", r"line 2: 1 cells, but the header has 2"),
        ("a.csv", b"a,a\n1,2\n", r"each name once"),
        ("a.csv", b"a\n\xff\n", r"cannot read .*a\.csv"),
        ("a.csv.gz", b"no gzip", r"cannot read .*a\.csv\.gz"),
        ("a.csv.gz", gzip.compress(b"a\n1\n" * 999, mtime=0)[:-20], r"cannot read .*complete"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"line 2: not a JSON object"),
        ("a.arrow", b"", r"unknown kind of file"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A file that is not a table is rejected; the message gives the line or the remedy."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=message):
        list(rows(tmp_path / name))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is rejected by name."""
    with pytest.raises(BadData, match=r"gone\.csv.*No such file"):
        list(rows(tmp_path / "gone.csv"))


@pytest.mark.parametrize("text", ["2014-07-01 00:00:00", "2014-07-01T02:00:00+02:00", "1404172800", 1404172800000.0])
def test_instants(text: str | float) -> None:
    """ISO text, unix seconds and unix milliseconds give the same instant; a text without an offset is UTC."""
    assert instant(text) == 1404172800.0


def test_labels_come_when_the_clock_reaches_their_time() -> None:
    """Labels come between the events, in the order of their own times; the remaining ones come at the end."""
    table = [trip(100, 250), trip(200, 210), trip(300, 900), trip(400)]
    expected = [
        ("event", "0", 100.0),
        ("event", "1", 200.0),
        ("label", "1", 210.0),
        ("label", "0", 250.0),
        ("event", "2", 300.0),
        ("event", "3", 400.0),
        ("label", "2", 900.0),
    ]
    assert expected == summary(list(replay(table, TIMED, TIMES)))


def test_rows_without_a_label_never_get_one() -> None:
    """A missing label, or a label without its time, is never sent."""
    table = [trip(100, 150, None), trip(200, None, 1), trip(300)]
    assert [moment.kind for moment in replay(table, TIMED, TIMES)] == ["event"] * 3


def test_the_replay_clock_never_decreases() -> None:
    """Rows out of order keep their own record timestamps, but the times of moments never decrease."""
    moments = list(replay([trip(300, 50), trip(100, 120), trip(310, 305)], TIMED, TIMES))
    times = [moment.time for moment in moments]
    assert sorted(times) == times
    assert [m.out.timestamp for m in moments if m.kind == "event" and m.out.key == b"1"] == [100_000]


def test_records_are_what_producers_would_write() -> None:
    """Events hold the declared fields with their types; times are record timestamps; both are keyed by the id."""
    event, label = replay([trip(100.5, 160, 0, speed="2.5", express="true", other="x")], TIMED, TIMES)
    assert (event.out.topic, event.out.key, event.out.timestamp) == ("trips.events", b"0", 100_500)
    assert value(event) == {"id": "0", "at": 100.5, "line": "7", "speed": 2.5, "express": True}
    assert (label.out.topic, label.out.key, label.out.timestamp) == ("trips.labels", b"0", 160_000)
    assert value(label) == {"id": "0", "label": 0, "time": 160.0}


def test_replayed_events_decode_as_the_declared_class() -> None:
    """The value of a replayed event decodes as the declared class."""
    import msgspec

    [event] = replay([trip(100, speed="3")], TIMED, TIMES._replace(label=None))
    decoded = msgspec.json.decode(event.out.value or b"", type=Trip)
    assert (decoded.at, decoded.speed, decoded.express) == (100.0, 3.0, None)


@pytest.mark.parametrize(("delay", "expected"), [(0, "e0 l0 e1 l1 e2 l2"), (2, "e0 e1 e2 l0 l1 l2")])
def test_without_label_times_a_label_follows_its_event(delay: int, expected: str) -> None:
    """A label comes directly after its own event, or a given number of events later."""
    table = [{"id": str(n), "value": n, "kind": "2"} for n in range(3)]
    moments = list(replay(table, PLAIN, Columns(label="kind"), label_delay=delay))
    assert expected == " ".join(f"{m.kind[0]}{(m.out.key or b'').decode()}" for m in moments)
    assert {None} == {m.out.timestamp for m in moments}
    assert value(next(m for m in moments if m.kind == "label")) == {"id": "0", "label": 2}


def test_a_label_without_its_own_time_becomes_known_with_the_event_before_it() -> None:
    """Without label times, the record timestamp of a label is that of the event before it."""
    moments = list(replay([trip(100), trip(200), trip(300)], TIMED, TIMES._replace(label_time=None), label_delay=1))
    assert [m.out.timestamp for m in moments if m.kind == "label"] == [200_000, 300_000, 300_000]


@pytest.mark.parametrize(
    "row", [{"at": "1"}, {"at": "soon", "line": "7"}, {"line": "7"}, {"at": "1", "line": "7", "speed": "fast"}]
)
def test_a_row_that_does_not_fit_is_named(row: dict[str, Any]) -> None:
    """A row that lacks a declared field, or has a value of another type, is rejected by its number."""
    with pytest.raises(BadData, match="row 2 does not fit the declaration"):
        list(replay([trip(100), row], TIMED, TIMES))


def test_a_file_of_labels_alone() -> None:
    """Labels from a file that holds only labels keep their order; their time is optional."""
    table: list[dict[str, Any]] = [{"id": "b", "label": "3", "time": "50"}, {"id": "a", "label": 1}]
    moments = list(replay_labels(table, PLAIN, Columns()))
    assert [value(m) for m in moments] == [{"id": "b", "label": 3, "time": 50.0}, {"id": "a", "label": 1}]
    with pytest.raises(BadData, match="row 1 has no 'label'"):
        list(replay_labels([{"id": "a"}], PLAIN, Columns()))
