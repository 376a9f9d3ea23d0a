"""The sample of the demo's flights that `tailrace demo --sample` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.datafiles.infer import infer
from tailrace.datafiles.read import Columns, rows
from tailrace.demo.sample import COLUMNS, ROWS, write
from tailrace.errors import UserError


def test_the_sample_has_distinct_ids_and_ordered_times(tmp_path: Path) -> None:
    """The file has the documented columns, one id per row, departures in order, and labels only with their times."""
    path = tmp_path / "flights.csv"
    assert write(path) == ROWS
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    found = list(rows(path))
    assert len({row["id"] for row in found}) == len(found) == ROWS
    scheduled = [row["scheduled"] for row in found]
    assert scheduled == sorted(scheduled)
    assert all(("late" in row) == ("landed" in row) for row in found)
    assert all(row["landed"] > row["scheduled"] for row in found if "landed" in row)


def test_a_pipeline_is_inferred_from_the_sample(tmp_path: Path) -> None:
    """`id` becomes the key without an option; the features are those that the README declares."""
    write(path := tmp_path / "flights.csv")
    found = infer(rows(path), Columns(label="late", time="scheduled", label_time="landed"))
    assert found.columns.id == "id"
    assert [field.name for field in found.fields] == ["carrier", "hour", "distance", "wind_gust"]
    assert found.left_out == {}


def test_an_existing_file_stays(tmp_path: Path) -> None:
    """The sample never overwrites a file."""
    path = tmp_path / "flights.csv"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"flights\.csv exists already"):
        write(path)
    assert path.read_text() == "mine"
