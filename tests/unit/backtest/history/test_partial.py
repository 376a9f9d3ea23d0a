"""Partial histories, read in this process and by a reader process."""

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
from tailrace.backtest import request as request_module
from tailrace.backtest.history import parts as parts_module
from tailrace.backtest.history.arrays import Delay, history, read_whole
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
    """Trips a minute apart. Labels become known after 90 seconds; every fifth has none."""
    rows: list[dict[str, Any]] = [{"at": 60 * n, "speed": n, "late": n % 2, "known": 60 * n + 90} for n in range(count)]
    for row in rows[::5]:
        del row["known"]
    return replay(rows, PIPELINE, COLUMNS)


def partial(count: int) -> PartialHistory:
    read = parts(moments(count), PIPELINE, PIPELINE.policy, dicts=True)
    return PartialHistory(read, ModelSpec.of(PIPELINE).features.optional, ModelSpec.of(PIPELINE).features.buckets)


@pytest.mark.parametrize("together", [1, 3, 1_000])
def test_parts_of_any_size_are_the_same_history(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of moments per part does not change the history."""
    expected = history(moments(40), PIPELINE)
    monkeypatch.setattr(parts_module, "PART_MOMENTS", together)
    found = history(moments(40), PIPELINE)
    assert (found.ids, found.arrivals, found.features) == (expected.ids, expected.arrivals, expected.features)
    assert len(found.arrivals) == 32
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.times, expected.times)
    np.testing.assert_array_equal(found.inputs.numbers, expected.inputs.numbers)


def test_parts_are_read_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method reads only the parts that it needs, and an iterator of labels includes those read meanwhile."""
    monkeypatch.setattr(parts_module, "PART_MOMENTS", 4)
    subject = partial(40)
    assert subject.has_events()
    assert subject.events < 5
    labels = subject.arrivals()
    labels_seen = [next(labels)]
    assert subject.time_at(labels_seen[0].position) == 60.0 * labels_seen[0].position
    assert subject.events < 10
    assert subject.first_event_at(1_000.0) == 17
    assert 17 < subject.events < 25
    labels_seen += labels
    assert labels_seen == read_whole(subject).arrivals == history(moments(40), PIPELINE).arrivals
    assert subject.time_at(99) == 60.0 * 39
    assert subject.first_event_at(1e9) == subject.count() == 40
    assert list(subject.arrivals()) == labels_seen


def test_a_history_without_events() -> None:
    """An empty history has no labels and no events, and ends at once."""
    subject = partial(0)
    assert not subject.has_events()
    assert (list(subject.arrivals()), subject.count(), subject.first_event_at(0.0)) == ([], 0, 0)
    assert len(read_whole(subject)) == 0


@pytest.fixture
def options(tmp_path: Path) -> BacktestOptions:
    """Options for a file whose last row, number 2,001, has no time."""
    file = tmp_path / "rows.csv"
    lines = [f"{60 * n},{n % 7},{n % 2},{60 * n + 90}" for n in range(2_000)]
    file.write_text("\n".join(["at,x,late,known", *lines, ",1,1,1"]) + "\n")
    return BacktestOptions(str(file), COLUMNS, limit=2_000)


def test_another_process_reads_the_same(options: BacktestOptions) -> None:
    """A reader process gives the same history as reading in this process."""
    source = inferred(options)
    features = ModelSpec.of(source.pipeline).features
    apart = read_whole(PartialHistory(PartsReader(source, options, Settings()), features.optional, features.buckets))
    here = history(request_module.moments(source.pipeline, options, Settings(), Delay()), source.pipeline, dicts=False)
    assert (apart.ids, apart.arrivals) == (here.ids, here.arrivals)
    np.testing.assert_array_equal(apart.targets, here.targets)
    np.testing.assert_array_equal(apart.inputs.categories, here.inputs.categories)


def test_errors_of_the_reader_are_raised_here(options: BacktestOptions) -> None:
    """The parts before a bad row arrive, followed by the error that reading in this process would raise."""
    found: deque[Part] = deque()
    reader = PartsReader(inferred(options), options._replace(limit=None), Settings())
    with pytest.raises(BadData, match="row 2001"):
        found.extend(reader)
    assert sum(len(part.ids) for part in found) > 1_500


def test_closing_a_history_ends_its_reader(options: BacktestOptions) -> None:
    """`close` ends the reader process before the end of the history; a second call does nothing."""
    source = inferred(options)
    reader = PartsReader(source, options, Settings())
    history_read = PartialHistory(
        reader, ModelSpec.of(source.pipeline).features.optional, ModelSpec.of(source.pipeline).features.buckets
    )
    assert history_read.has_events()
    (child,) = active_children()
    history_read.close()
    history_read.close()
    assert not child.is_alive()
    assert active_children() == []


def test_a_dead_reader_is_an_error(options: BacktestOptions, tmp_path: Path) -> None:
    """If the reader process dies, the parts received so far do not count as the complete history."""
    file = tmp_path / "pipeline.py"
    file.write_text("import os\n\nos._exit(3)\n")
    with pytest.raises(RuntimeError, match="ended before"):
        list(PartsReader(PipelineSource(PIPELINE, reference=str(file)), options, Settings()))
