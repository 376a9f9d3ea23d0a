"""A history that grows while it is replayed: in one process, and read by another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailrace import Event, EventTime, Key, Label, Number, Pipeline
from tailrace.app.settings import Settings
from tailrace.backtest import request as asking
from tailrace.backtest.history import parts as reading
from tailrace.backtest.history.arrays import Delay, history, whole
from tailrace.backtest.history.partial import PartialHistory
from tailrace.backtest.history.parts import Part, parts
from tailrace.backtest.history.reader_process import PartsReader
from tailrace.backtest.request import BacktestOptions, PipelineSource, inferred
from tailrace.datafiles.read import Columns, Moment, replay
from tailrace.errors import BadData
from tailrace.inference.models.spec import ModelSpec

COLUMNS = Columns(time="at", label="late", label_time="known")


class Trip(Event):
    id: Key
    at: EventTime
    speed: Number


PIPELINE = Pipeline("trips", event=Trip, label=Label("late", wait="1h"))


def moments(count: int) -> Iterator[Moment]:
    """Trips a minute apart, whose labels are known 90 seconds later; of every fifth never."""
    rows: list[dict[str, Any]] = [{"at": 60 * n, "speed": n, "late": n % 2, "known": 60 * n + 90} for n in range(count)]
    for row in rows[::5]:
        del row["known"]
    return replay(rows, PIPELINE, COLUMNS)


def growing(count: int) -> PartialHistory:
    some = parts(moments(count), PIPELINE, PIPELINE.policy, dicts=True)
    return PartialHistory(some, ModelSpec.of(PIPELINE).features.optional, ModelSpec.of(PIPELINE).features.buckets)


@pytest.mark.parametrize("together", [1, 3, 1_000])
def test_parts_of_any_size_are_the_same_history(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many moments are taken at once, the whole is that of one part."""
    expected = history(moments(40), PIPELINE)
    monkeypatch.setattr(reading, "TOGETHER", together)
    found = history(moments(40), PIPELINE)
    assert (found.ids, found.arrivals, found.features) == (expected.ids, expected.arrivals, expected.features)
    assert len(found.arrivals) == 32
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.times, expected.times)
    np.testing.assert_array_equal(found.inputs.numbers, expected.inputs.numbers)


def test_no_more_is_read_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label, a time and an event each take parts until they are known; labels that a part brings meanwhile are told
    in their turn."""
    monkeypatch.setattr(reading, "TOGETHER", 4)
    subject = growing(40)
    assert subject.some()
    assert subject.events < 5
    labels = subject.arrivals()
    told = [next(labels)]
    assert subject.at(told[0].position) == 60.0 * told[0].position
    assert subject.events < 10
    assert subject.first_at(1_000.0) == 17
    assert 17 < subject.events < 25
    told += labels
    assert told == whole(subject).arrivals == history(moments(40), PIPELINE).arrivals
    assert subject.at(99) == 60.0 * 39
    assert subject.first_at(1e9) == subject.count() == 40
    assert list(subject.arrivals()) == told


def test_a_history_without_events() -> None:
    """It has an end, and nothing else."""
    subject = growing(0)
    assert not subject.some()
    assert (list(subject.arrivals()), subject.count(), subject.first_at(0.0)) == ([], 0, 0)
    assert len(whole(subject)) == 0


@pytest.fixture
def asked(tmp_path: Path) -> BacktestOptions:
    """Of a file whose 2,000th row has no time."""
    file = tmp_path / "rows.csv"
    lines = [f"{60 * n},{n % 7},{n % 2},{60 * n + 90}" for n in range(2_000)]
    file.write_text("\n".join(["at,x,late,known", *lines, ",1,1,1"]) + "\n")
    return BacktestOptions(str(file), COLUMNS, limit=2_000)


def test_another_process_reads_the_same(asked: BacktestOptions) -> None:
    """Parts that come from another process are those that this one reads."""
    subject = inferred(asked)
    features = ModelSpec.of(subject.pipeline).features
    apart = whole(PartialHistory(PartsReader(subject, asked, Settings()), features.optional, features.buckets))
    here = history(asking.moments(subject.pipeline, asked, Settings(), Delay()), subject.pipeline, dicts=False)
    assert (apart.ids, apart.arrivals) == (here.ids, here.arrivals)
    np.testing.assert_array_equal(apart.targets, here.targets)
    np.testing.assert_array_equal(apart.inputs.categories, here.inputs.categories)


def test_what_reading_raises_is_raised_here(asked: BacktestOptions) -> None:
    """The parts before the bad row come; then the error, as it would be without the other process."""
    found: deque[Part] = deque()
    coming = PartsReader(inferred(asked), asked._replace(limit=None), Settings())
    with pytest.raises(BadData, match="row 2001"):
        found.extend(coming)
    assert sum(len(part.ids) for part in found) > 1_500


def test_closing_a_history_ends_its_reader(asked: BacktestOptions) -> None:
    """The process that reads ends with the history, read or not; closing again does nothing."""
    subject = inferred(asked)
    reader = PartsReader(subject, asked, Settings())
    growing = PartialHistory(
        reader, ModelSpec.of(subject.pipeline).features.optional, ModelSpec.of(subject.pipeline).features.buckets
    )
    assert growing.some()
    (child,) = active_children()
    growing.close()
    growing.close()
    assert not child.is_alive()
    assert active_children() == []


def test_a_reader_that_dies_is_told(asked: BacktestOptions, tmp_path: Path) -> None:
    """Without the word that all was read, the history is not taken for whole."""
    file = tmp_path / "pipeline.py"
    file.write_text("import os\n\nos._exit(3)\n")
    with pytest.raises(RuntimeError, match="ended before"):
        list(PartsReader(PipelineSource(PIPELINE, reference=str(file)), asked, Settings()))
