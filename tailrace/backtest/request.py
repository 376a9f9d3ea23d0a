"""Options of a backtest, the source of its pipeline, and its recorded events and labels."""

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
    """Options of a backtest.

    `data`: file path or log URL. `drop`: columns that are not features. `delay`: label delay as `Delay.parse` reads it
    (None: natural if the data has label times, else none). `policies`: paths of policy files. `score_from`: number of
    first events to leave out of the figures. `limit`: number of events to replay (None: all). `rate`: rows per second
    that training is charged to the simulated clock.
    """

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
    """The pipeline of a backtest, and how another process loads it.

    `text`: text of the inferred pipeline file. `reference`: name of the declared pipeline. Without either of them,
    another process cannot load it.
    """

    pipeline: Pipeline
    text: str | None = None
    reference: str | None = None

    @classmethod
    def load(cls, *, text: str | None = None, reference: str | None = None) -> PipelineSource:
        """Load the pipeline from the text of a file, or by its reference if `text` is None. Raise BadPipeline."""
        if text is None:
            assert reference is not None
            return cls(load_pipeline(reference), None, reference)
        with TemporaryDirectory() as directory:
            file = Path(directory) / "pipeline.py"
            file.write_text(text, encoding="utf-8")
            return cls(load_pipeline(str(file)), text)


def inferred(options: BacktestOptions) -> PipelineSource:
    """Infer the pipeline from the data, as `tailrace init --from` does. Raise BadData."""
    data = origin(options.data)
    if isinstance(data, LogOrigin):
        raise BadData("without a PIPELINE, --data must be a file, whose columns define the event")
    if options.columns.label is None:
        raise BadData("without a PIPELINE, --label must name the column to predict")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        text = pool.submit(_inferred_text, data, options.columns, options.drop)
        import_module("tailrace.backtest.simulation")  # imports torch while the other process infers
        return PipelineSource.load(text=text.result())


def _inferred_text(file: Path, columns: Columns, drop: Sequence[str]) -> str:
    """Return the text of the pipeline file."""
    from tailrace.datafiles import templates
    from tailrace.datafiles.infer import infer

    name = templates.pipeline_name(file.name.partition(".")[0])
    return templates.pipeline_file(name, str(file), infer(rows(file), columns, drop))


def moments(pipeline: Pipeline, options: BacktestOptions, settings: Settings, delay: Delay) -> Iterator[Moment]:
    """Iterate over events and labels in the order in which they became known. Raise BadData, LogError.

    With a `delay` other than the natural one, the label times of a file are ignored; the caller delays the labels.
    """
    data = origin(options.data)
    if isinstance(data, LogOrigin):
        recorded = data.moments(pipeline, settings.log.connection_options())
        return recorded if options.limit is None else _first(recorded, options.limit)
    columns = options.columns
    if delay != Delay():
        columns = columns._replace(label_time=None)
    return replay(itertools.islice(rows(data), options.limit), pipeline, columns)


def _first(moments: Iterator[Moment], events: int) -> Iterator[Moment]:
    """Yield moments up to event number `events`, including the labels in between."""
    for moment in moments:
        if moment.kind == "event":
            if events == 0:
                return
            events -= 1
        yield moment
