"""What a backtest is asked for, the pipeline it is about, and the moments of its data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tailrace.app.pipeline_file import load_pipeline
from tailrace.app.settings import Settings
from tailrace.backtest.history.arrays import Delay
from tailrace.backtest.source import LogOrigin, origin
from tailrace.datafiles.read import Columns, Moment, replay, rows
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadData


class BacktestOptions(NamedTuple):
    """What a backtest is asked for. `limit`: the first so many events; `delay` None: natural where the data has label
    times, else none at all. `rate`: rows a second that training is charged with on the simulated clock."""

    data: str
    columns: Columns
    drop: Sequence[str] = ()
    delay: str | None = None
    policies: Sequence[Path] = ()
    baselines: bool = False
    seed: int = 0
    score_from: int = 0
    limit: int | None = None
    rate: float = 50_000.0


class PipelineSource(NamedTuple):
    """The pipeline in question, and where another process finds it: `text` is its file, where it was inferred from the
    data, `reference` names it, where it was declared; neither: nowhere."""

    pipeline: Pipeline
    text: str | None = None
    reference: str | None = None

    @classmethod
    def load(cls, *, text: str | None = None, reference: str | None = None) -> PipelineSource:
        """The pipeline of this file's text, or of this name. Raises BadPipeline."""
        if text is None:
            assert reference is not None
            return cls(load_pipeline(reference), None, reference)
        with TemporaryDirectory() as directory:
            file = Path(directory) / "pipeline.py"
            file.write_text(text, encoding="utf-8")
            return cls(load_pipeline(str(file)), text)


def inferred(asked: BacktestOptions) -> PipelineSource:
    """The pipeline that `tailrace init --from` would write for the data. Raises BadData."""
    source = origin(asked.data)
    if isinstance(source, LogOrigin):
        raise BadData("without a PIPELINE, --data must be a file: its columns say what an event is")
    if asked.columns.label is None:
        raise BadData("without a PIPELINE, --label must name the column to predict")
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        text = apart.submit(_inferred, source, asked.columns, asked.drop)
        import_module("tailrace.backtest.simulation")  # torch: it is going to be needed, and takes as long
        return PipelineSource.load(text=text.result())


def _inferred(source: Path, columns: Columns, drop: Sequence[str]) -> str:
    """The file that declares it."""
    from tailrace.datafiles import templates
    from tailrace.datafiles.infer import infer

    name = templates.pipeline_name(source.name.partition(".")[0])
    return templates.pipeline_file(name, str(source), infer(rows(source), columns, drop))


def moments(pipeline: Pipeline, asked: BacktestOptions, settings: Settings, delay: Delay) -> Iterator[Moment]:
    """All that happened. Raises BadData and LogError."""
    source = origin(asked.data)
    if isinstance(source, LogOrigin):
        found = source.moments(pipeline, settings.log.connection_options())
        return found if asked.limit is None else _first(found, asked.limit)
    columns = asked.columns
    if delay != Delay():
        columns = columns._replace(label_time=None)
    return replay(itertools.islice(rows(source), asked.limit), pipeline, columns)


def _first(moments: Iterator[Moment], events: int) -> Iterator[Moment]:
    """The moments up to the first so many events, and the labels between."""
    for moment in moments:
        if moment.kind == "event":
            if events == 0:
                return
            events -= 1
        yield moment
