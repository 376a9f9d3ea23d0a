"""A complete backtest: read the data, simulate the policies one after another, run the baselines, return the result.

data --reader process--> history --policy by policy--> simulation -> entries
                            +-----one process each----> baselines -> entries
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from typing import TypeAlias

import msgspec

from tailrace.app.settings import Settings
from tailrace.backtest.entry import Prices, entry
from tailrace.backtest.history.arrays import Delay, Stream, collector_paused, history, read_whole
from tailrace.backtest.history.partial import PartialHistory
from tailrace.backtest.history.reader_process import PartsReader
from tailrace.backtest.metrics import Prequential
from tailrace.backtest.policy import Policy, read_policy
from tailrace.backtest.request import BacktestOptions, PipelineSource, moments
from tailrace.backtest.result import BacktestEntry, BacktestResult
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadData
from tailrace.inference.models.spec import ModelSpec

Progress: TypeAlias = Callable[[str, int, int], None]
"""Callback with (task, amount done, total amount); total 0: unknown."""


def backtest(
    source: PipelineSource, options: BacktestOptions, settings: Settings, progress: Progress
) -> BacktestResult:
    """Run a backtest. Raise BadData, LogError, MissingExtra, and any error of a declared model module."""
    pipeline, delay = source.pipeline, Delay.parse(options.delay or "natural")
    own = Policy.of(pipeline)
    if source.text is not None:  # the inferred base rate is that of all labels, which would leak the future
        label = msgspec.structs.replace(pipeline.label, base_rate=None)
        own = Policy("default", pipeline.replace(label=label))
    policies = [own, *(read_policy(path, own) for path in options.policies)]
    if options.baselines:
        from tailrace.backtest.baselines.river import check_river

        check_river()
    progress("reading", 0, 0)
    with closing(_read_history(source, options, settings, delay)) as partial:  # closing ends the reader process
        import_module("tailrace.backtest.simulation")  # imports torch while the first part is being read
        if not partial.has_events():
            raise BadData(f"{options.data} holds no event of this pipeline")
        return _result(policies, partial, pipeline, options, settings, progress)


def _result(
    policies: list[Policy],
    partial: PartialHistory,
    pipeline: Pipeline,
    options: BacktestOptions,
    settings: Settings,
    progress: Progress,
) -> BacktestResult:
    measure = Prequential(pipeline.task, options.score_from)
    prices = Prices(settings.costs.kwh, settings.costs.core_hour)
    watts = settings.costs.watts_per_core
    seeded = [policy.seeded(options.seed) for policy in policies]
    entries = [_simulated(policy, partial, options.rate, measure, prices, watts, progress) for policy in seeded]
    stream = read_whole(partial)
    baselines: list[BacktestEntry] = []
    if options.baselines:
        baselines = list(_baselines(stream, pipeline, options, measure, prices, watts, progress))
    return BacktestResult(
        data=options.data,
        events=len(stream),
        labels=len(stream.arrivals),
        label_delay=options.delay or "natural",
        pipeline=pipeline.name,
        task=str(pipeline.task.kind),
        score_from=options.score_from,
        seed=options.seed,
        timed=_timed(pipeline, options),
        currency=settings.costs.currency,
        training_rate=options.rate,
        policies=entries,
        baselines=baselines,
    )


def _read_history(source: PipelineSource, options: BacktestOptions, settings: Settings, delay: Delay) -> PartialHistory:
    """Open the history. With natural delays another process reads it during the replay, if it can load the pipeline.

    Any other delay changes the order of the labels, so the whole history is read first.
    """
    pipeline = source.pipeline
    features = ModelSpec.of(pipeline).features
    if delay == Delay() and (source.text or source.reference):
        return PartialHistory(
            PartsReader(source, options, settings),
            features.optional,
            features.buckets,
            source.pipeline.task.target_shape,
        )
    with collector_paused():
        recorded = moments(pipeline, options, settings, delay)
        return history(recorded, pipeline, dicts=options.baselines).delayed(delay).as_partial()


def _timed(pipeline: Pipeline, options: BacktestOptions) -> bool:
    return pipeline.schema.time is not None or options.columns.time is not None or "://" in options.data


def _simulated(
    policy: Policy,
    partial: PartialHistory,
    rate: float,
    measure: Prequential,
    prices: Prices,
    watts: float,
    progress: Progress,
) -> BacktestEntry:
    from tailrace.backtest.simulation import Rates, Simulation
    from tailrace.monitoring.telemetry.energy import EnergyMeter

    meter = EnergyMeter(watts)
    mark = meter.mark()
    rates = Rates.of(rate, policy.pipeline.online)

    def report(done: int) -> None:
        progress(policy.name, done, partial.events)

    result = Simulation(policy, partial, rates, progress=report).run()
    return entry(
        policy.name,
        partial,
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
    options: BacktestOptions,
    measure: Prequential,
    prices: Prices,
    watts: float,
    progress: Progress,
) -> Iterator[BacktestEntry]:
    from tailrace.backtest.baselines.run import BASELINES, run_all
    from tailrace.monitoring.telemetry.energy import estimate

    progress("baselines", 0, len(BASELINES))
    entries = {}
    for name, baseline in run_all(stream, pipeline.task, seed=options.seed):
        energy = estimate(baseline.cpu_seconds, watts)  # two run at a time, and counters measure both together
        entries[name] = entry(
            name,
            stream,
            baseline.scores,
            measure,
            prices,
            cpu_seconds=baseline.cpu_seconds,
            seconds=baseline.seconds,
            energy=energy,
        )
        progress("baselines", len(entries), len(BASELINES))
    return (entries[name] for name in BASELINES)
