"""Runners of the roles: build the loop of a worker, a joiner and a rekeyer from a declaration and the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tailrace.app.factory import join_labels, join_step, rekey_step, rekeyer_group, score_step
from tailrace.app.settings import Settings
from tailrace.declaration.pipeline import Pipeline
from tailrace.streams.log.base import Delivery, Log, Sharing, TopicPartition

if TYPE_CHECKING:
    from tailrace.monitoring.telemetry.lag import Reached
    from tailrace.monitoring.telemetry.metrics import Metrics
    from tailrace.streams.log.records import Record
    from tailrace.streams.runtime.runner import Runner

COMMIT_EMBEDDED_S, COMMIT_KAFKA_S = 0.005, 0.03
COMMIT_AT_LEAST_ONCE_S = 0.5
"""Seconds between two commits, unless the settings specify them. See docs/decisions/0005."""


def build_worker(
    log: Log,
    pipeline: Pipeline,
    settings: Settings,
    stack: ExitStack,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.time,
    deadly: Callable[[Record], bool] | None = None,
) -> Runner:
    """Build the runner of a worker. Its LiveModel follows the releases until `stack` closes.

    `clock`: see ScoreStep; `deadly`: see Runner.
    """
    from tailrace.monitoring.telemetry.observers import WorkerObserver
    from tailrace.streams.runtime.batch_size import BatchSize
    from tailrace.streams.runtime.runner import Runner, RunnerConfig

    observer = WorkerObserver(metrics)
    step = score_step(log, pipeline, settings, stack, observer, clock)
    worker = settings.worker
    config = RunnerConfig(
        topics=(pipeline.topics.events,),
        group=f"{pipeline.name}.worker",
        writer=f"{pipeline.name}-worker-{worker.instance}",
        instance=worker.instance,
        delivery=Delivery(worker.delivery),
        commit_interval=COMMIT_AT_LEAST_ONCE_S
        if worker.commit_ms is None and worker.delivery == "at_least_once"
        else _commit_interval(worker.commit_ms, settings),
    )
    batch = BatchSize(worker.latency_ms / 1000, smallest=min(64, worker.batch_max), largest=worker.batch_max)
    runner = Runner(log, step, config, batch=batch, observer=observer, deadly=deadly)
    watch_lag(metrics, log, config.group, config.topics, observer.reached, lambda: runner.assignment)
    return runner


def build_joiner(
    log: Log,
    pipeline: Pipeline,
    settings: Settings,
    metrics: Metrics | None = None,
    deadly: Callable[[Record], bool] | None = None,
) -> Runner:
    """Build the runner of a joiner; `deadly`: see Runner. Raise TopicMissing if partition counts differ."""
    from tailrace.monitoring.telemetry.observers import JoinerObserver
    from tailrace.streams.runtime.runner import Runner, RunnerConfig

    topics, labels, step = pipeline.topics, join_labels(pipeline), join_step(log, pipeline)
    joiner = settings.joiner
    config = RunnerConfig(
        topics=(topics.predictions, labels),
        group=f"{pipeline.name}.joiner",
        writer=f"{pipeline.name}-joiner-{joiner.instance}",
        instance=joiner.instance,
        sharing=Sharing.TOGETHER,
        commit_interval=_commit_interval(joiner.commit_ms, settings),
    )
    observer = JoinerObserver(metrics, step)
    runner = Runner(log, step, config, observer=observer, deadly=deadly)
    watch_lag(metrics, log, config.group, config.topics, observer.reached, lambda: runner.assignment)
    return runner


def build_rekeyer(
    log: Log,
    pipeline: Pipeline,
    settings: Settings,
    metrics: Metrics | None = None,
    deadly: Callable[[Record], bool] | None = None,
) -> Runner:
    """Build the runner that copies labels to a topic keyed by the event id; `deadly`: see Runner."""
    from tailrace.streams.runtime.runner import Runner, RunnerConfig

    topics = pipeline.topics
    config = RunnerConfig(
        topics=(topics.labels,),
        group=rekeyer_group(pipeline),
        writer=f"{pipeline.name}-rekeyer-{settings.joiner.instance}",
        instance=settings.joiner.instance,
        commit_interval=_commit_interval(settings.joiner.commit_ms, settings),
    )
    return Runner(log, rekey_step(log, pipeline, metrics), config, deadly=deadly)


def watch_lag(
    metrics: Metrics | None,
    log: Log,
    group: str,
    topics: Sequence[str],
    reached: Reached | None = None,
    held: Callable[[], Collection[TopicPartition]] | None = None,
) -> None:
    """Export the lag of a consumer group in these metrics (None: do nothing); see LagCollector."""
    if metrics:
        from tailrace.monitoring.telemetry.lag import LagCollector

        metrics.registry.register(LagCollector(log, group, topics, reached, held))


def _commit_interval(milliseconds: float | None, settings: Settings) -> float:
    """Return the configured time between two commits in seconds, or the default of the log."""
    if milliseconds is not None:
        return milliseconds / 1000
    return COMMIT_EMBEDDED_S if settings.log.url.startswith("sqlite:") else COMMIT_KAFKA_S
