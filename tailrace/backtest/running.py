"""A whole backtest: the data, the policies one after the other, the baselines; and what came of it.

data -> history --policy by policy--> simulation -> entries
                +--each in a process of its own--> baselines -> entries
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeAlias

import msgspec

from tailrace.backtest.entries import Prices, entry
from tailrace.backtest.figures import Prequential
from tailrace.backtest.history import Delay, Stream, history
from tailrace.backtest.origins import LogOrigin, origin
from tailrace.backtest.outcome import Entry, Outcome
from tailrace.backtest.policies import Policy, read_policy
from tailrace.errors import BadData
from tailrace.pipeline import Pipeline
from tailrace.settings import Settings
from tailrace.sources import Columns, Moment

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is going on, how much is done, of how much)."""


class Asked(NamedTuple):
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


class Subject(NamedTuple):
    """The pipeline in question; `text`: its file, where it was inferred from the data."""

    pipeline: Pipeline
    text: str | None = None


def inferred(asked: Asked) -> Subject:
    """The pipeline that `tailrace init --from` would write for the data. Raises BadData."""
    from tailrace import templates
    from tailrace.inferring import infer
    from tailrace.loading import load_pipeline
    from tailrace.sources import rows

    source = origin(asked.data)
    if isinstance(source, LogOrigin):
        raise BadData("without a PIPELINE, --data must be a file: its columns say what an event is")
    if asked.columns.label is None:
        raise BadData("without a PIPELINE, --label must name the column to predict")
    found = infer(rows(source), asked.columns, asked.drop)
    name = templates.pipeline_name(source.name.partition(".")[0])
    text = templates.pipeline_file(name, str(source), found)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "pipeline.py"
        file.write_text(text, encoding="utf-8")
        return Subject(load_pipeline(str(file)), text)


def backtest(subject: Subject, asked: Asked, settings: Settings, progress: Progress) -> Outcome:
    """Run it. Raises BadData, LogError, and what a declared module raises."""
    pipeline, delay = subject.pipeline, Delay.parse(asked.delay or "natural")
    own = Policy.of(pipeline)
    if subject.text is not None:  # a rate that was read off all labels would know the future
        own = msgspec.structs.replace(own, name="default", base_rate=None)
    policies = [own, *(read_policy(path, own) for path in asked.policies)]
    progress("reading", 0, 0)
    moments = _moments(pipeline, asked, settings, delay)
    with _uncollected():
        stream = history(moments, pipeline, dicts=asked.baselines).delayed(delay)
    if not len(stream):
        raise BadData(f"{asked.data} holds no event of this pipeline")
    measure = Prequential(pipeline.task, asked.score_from)
    prices = Prices(settings.costs.kwh, settings.costs.core_hour)
    watts = settings.costs.watts_per_core
    return Outcome(
        data=asked.data,
        events=len(stream),
        labels=len(stream.arrivals),
        label_delay=asked.delay or "natural",
        pipeline=pipeline.name,
        task=str(pipeline.task.kind),
        score_from=asked.score_from,
        seed=asked.seed,
        timed=_timed(pipeline, asked),
        currency=settings.costs.currency,
        training_rate=asked.rate,
        policies=[
            _simulated(p.seeded(asked.seed), stream, asked.rate, measure, prices, watts, progress) for p in policies
        ],
        baselines=[*_baselines(stream, pipeline, asked, measure, prices, watts, progress)] if asked.baselines else [],
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Millions of objects are made and none is garbage: looking through them again and again takes half the time."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _moments(pipeline: Pipeline, asked: Asked, settings: Settings, delay: Delay) -> Iterator[Moment]:
    from tailrace.sources import replay, rows

    source = origin(asked.data)
    if isinstance(source, LogOrigin):
        moments = source.moments(pipeline, settings.log.connection_options())
        return moments if asked.limit is None else _first(moments, asked.limit)
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


def _timed(pipeline: Pipeline, asked: Asked) -> bool:
    return pipeline.schema.time is not None or asked.columns.time is not None or "://" in asked.data


def _simulated(
    policy: Policy,
    stream: Stream,
    rate: float,
    measure: Prequential,
    prices: Prices,
    watts: float,
    progress: Progress,
) -> Entry:
    from monitoring.energy import Meter
    from tailrace.backtest.simulation import Rates, Simulation

    meter = Meter(watts)
    mark = meter.mark()
    rates = Rates.of(rate, policy.online)
    result = Simulation(policy, stream, rates, progress=lambda done: progress(policy.name, done, len(stream))).run()
    return entry(
        policy.name,
        stream,
        result.scores,
        measure,
        prices,
        cpu_seconds=result.cpu_seconds,
        seconds=result.seconds,
        energy=meter.since(mark),
        settings=policy.settings(),
        releases=result.published,
        updates=result.updates,
        retrainings=result.retrainings,
        drifts=result.drifts,
    )


def _baselines(
    stream: Stream,
    pipeline: Pipeline,
    asked: Asked,
    measure: Prequential,
    prices: Prices,
    watts: float,
    progress: Progress,
) -> Iterator[Entry]:
    from monitoring.energy import estimate
    from tailrace.backtest.baselines import BASELINES, run_all

    progress("baselines", 0, len(BASELINES))
    done = {}
    for name, ran in run_all(stream, pipeline.task, seed=asked.seed):
        energy = estimate(ran.cpu_seconds, watts)  # two run at a time, which counters would not tell apart
        done[name] = entry(
            name,
            stream,
            ran.scores,
            measure,
            prices,
            cpu_seconds=ran.cpu_seconds,
            seconds=ran.seconds,
            energy=energy,
        )
        progress("baselines", len(done), len(BASELINES))
    return (done[name] for name in BASELINES)
