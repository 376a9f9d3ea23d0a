"""A whole backtest: the data, the policies one after the other, the baselines; and what came of it.

data --in a process of its own--> history --policy by policy--> simulation -> entries
                                  +--each in a process of its own--> baselines -> entries
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from typing import TypeAlias

import msgspec

from tailrace.app.settings import Settings
from tailrace.backtest.entry import Prices, entry
from tailrace.backtest.history.arrays import Delay, Stream, history, uncollected, whole
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
"""Called with (what is going on, how much is done, of how much)."""


def backtest(subject: PipelineSource, asked: BacktestOptions, settings: Settings, progress: Progress) -> BacktestResult:
    """Run it. Raises BadData, LogError, MissingExtra, and what a declared module raises."""
    pipeline, delay = subject.pipeline, Delay.parse(asked.delay or "natural")
    own = Policy.of(pipeline)
    if subject.text is not None:  # a rate that was read off all labels would know the future
        label = msgspec.structs.replace(pipeline.label, base_rate=None)
        own = Policy("default", pipeline.replace(label=label))
    policies = [own, *(read_policy(path, own) for path in asked.policies)]
    if asked.baselines:
        from tailrace.backtest.baselines import check_river

        check_river()
    progress("reading", 0, 0)
    with closing(_reading(subject, asked, settings, delay)) as growing:  # ends the process that reads
        import_module("tailrace.backtest.simulation")  # torch: it takes as long as the first part does to be there
        if not growing.some():
            raise BadData(f"{asked.data} holds no event of this pipeline")
        return _outcome(policies, growing, pipeline, asked, settings, progress)


def _outcome(
    policies: list[Policy],
    growing: PartialHistory,
    pipeline: Pipeline,
    asked: BacktestOptions,
    settings: Settings,
    progress: Progress,
) -> BacktestResult:
    measure = Prequential(pipeline.task, asked.score_from)
    prices = Prices(settings.costs.kwh, settings.costs.core_hour)
    watts = settings.costs.watts_per_core
    seeded = [policy.seeded(asked.seed) for policy in policies]
    entries = [_simulated(policy, growing, asked.rate, measure, prices, watts, progress) for policy in seeded]
    stream = whole(growing)
    return BacktestResult(
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
        policies=entries,
        baselines=[*_baselines(stream, pipeline, asked, measure, prices, watts, progress)] if asked.baselines else [],
    )


def _reading(subject: PipelineSource, asked: BacktestOptions, settings: Settings, delay: Delay) -> PartialHistory:
    """The history in question. As late as labels were it is read while it is replayed, where that can be; the labels of
    another delay are sorted first."""
    pipeline = subject.pipeline
    features = ModelSpec.of(pipeline).features
    if delay == Delay() and (subject.text or subject.reference):
        return PartialHistory(
            PartsReader(subject, asked, settings),
            features.optional,
            features.buckets,
            subject.pipeline.task.target_shape,
        )
    with uncollected():
        found = moments(pipeline, asked, settings, delay)
        return history(found, pipeline, dicts=asked.baselines).delayed(delay).known()


def _timed(pipeline: Pipeline, asked: BacktestOptions) -> bool:
    return pipeline.schema.time is not None or asked.columns.time is not None or "://" in asked.data


def _simulated(
    policy: Policy,
    growing: PartialHistory,
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

    def tell(done: int) -> None:
        progress(policy.name, done, growing.events)

    result = Simulation(policy, growing, rates, progress=tell).run()
    return entry(
        policy.name,
        growing,
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
    asked: BacktestOptions,
    measure: Prequential,
    prices: Prices,
    watts: float,
    progress: Progress,
) -> Iterator[BacktestEntry]:
    from tailrace.backtest.baselines import BASELINES, run_all
    from tailrace.monitoring.telemetry.energy import estimate

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
