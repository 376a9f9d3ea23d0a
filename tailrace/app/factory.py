"""Wiring: a declaration and settings become runners, keys and a log. Nothing is decided here, only put together."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import structlog

from tailrace.app.settings import Settings
from tailrace.declaration.durations import seconds
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadSetting
from tailrace.streams.log.base import Delivery, Log, Sharing, TopicPartition, Unreachable
from tailrace.streams.log.topology import topology

if TYPE_CHECKING:
    from tailrace.inference.releases.signing import SigningKey, TrustedKeys
    from tailrace.inference.releases.storage import Store
    from tailrace.inference.serving.live_model import LiveModel, RefusedRelease, Swap
    from tailrace.monitoring.telemetry.lag import Reached
    from tailrace.monitoring.telemetry.metrics import Metrics
    from tailrace.monitoring.telemetry.observers import WorkerObserver
    from tailrace.streams.runtime.runner import Runner

COMMIT_EMBEDDED_S, COMMIT_KAFKA_S = 0.005, 0.03
COMMIT_AT_LEAST_ONCE_S = 0.5
"""Seconds between two commits where the settings do not say. See docs/decisions/0005."""
FIRST_RELEASE_S = 10.0
"""How long a worker that starts waits at most for the release that is current then, before it serves the base rate."""

_log = structlog.get_logger(__name__)


def open_configured_log(settings: Settings) -> Log:
    """The log that the settings name; the directory of an embedded one is created. Raises Unreachable, BadUrl."""
    from tailrace.streams.log.url import open_log

    url = settings.log.url
    if url.startswith("sqlite:///"):
        directory = Path(unquote(urlsplit(url).path)[1:]).parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unreachable(
                f"cannot create the log's directory {directory} ({error.strerror}): set log.url to a writable place"
            ) from None
    return open_log(url, settings.log.connection_options())


def create_topics(log: Log, pipeline: Pipeline, settings: Settings) -> None:
    """Create the pipeline's topics that do not exist. Raises BadSetting.

    Where the events or labels topic exists already, the others take its number of partitions, as the join needs.
    """
    existing = log.partitions(join_labels(pipeline))
    log.create(topology(pipeline, existing or settings.log.partitions, _retention(pipeline, settings)))


def _retention(pipeline: Pipeline, settings: Settings) -> float | None:
    """Seconds. A joiner that starts again reads back to its oldest open window: what is in it must still be there."""
    text, wait = settings.log.retention, pipeline.policy.wait
    if not text:
        return None
    if seconds(text) <= wait:
        raise BadSetting(
            f"log.retention = {text!r} would remove predictions before their label's wait of {wait:g} s has passed: "
            "make it longer than that, or shorten Label(wait)"
        )
    return seconds(text)


def join_labels(pipeline: Pipeline) -> str:
    """The labels topic that the join reads: the user's, or the one that is keyed anew."""
    return pipeline.topics.labels_by_id if pipeline.label.rekey else pipeline.topics.labels


def trusted_keys(settings: Settings) -> TrustedKeys:
    """The public keys whose releases are served. Nothing is made here: who serves must not choose whom to trust.

    Raises BadKey, also when there is none.
    """
    from tailrace.inference.releases.signing import some_keys

    return some_keys(_public_keys(settings), settings.keys.directory)


def signing_key(settings: Settings) -> SigningKey:
    """The key that signs releases; the directory's is created. Raises BadKey, also when nobody here trusts it."""
    from tailrace.inference.releases.signing import BadKey, create_keys, load_signing_key

    keys = settings.keys
    key = load_signing_key(keys.signing) if keys.signing else create_keys(keys.directory)
    if key.key_id not in _public_keys(settings).ids:
        raise BadKey(
            f"the signing key {key.key_id} is not trusted, no worker would serve its releases: put its public half "
            f"into {keys.directory / 'trusted'}, or among keys.trusted"
        )
    return key


def _public_keys(settings: Settings) -> TrustedKeys:
    from tailrace.inference.releases.signing import load_trusted_keys, read_trusted_keys

    keys = settings.keys
    if keys.trusted:
        return read_trusted_keys(keys.trusted, keys.revoked)
    return load_trusted_keys(keys.directory, keys.revoked)


def configured_store(settings: Settings) -> Store | None:
    """Where large weights go; None: through the log. Raises StoreUnreachable."""
    from tailrace.inference.releases.storage import Store, check_store

    releases = settings.releases
    if releases.store is None:
        return None
    check_store(releases.store)
    return Store(releases.store, releases.inline_max_bytes)


def code_digest(pipeline: Pipeline) -> str:
    """SHA-256 (hex) of what decides what training does: Tailrace's and torch's versions, and the declaring module's
    source."""
    from importlib.metadata import version

    source = inspect.getsourcefile(pipeline.schema.event)
    parts = [f"tailrace {version('tailrace')}", f"torch {version('torch')}"]
    content = Path(source).read_bytes() if source else b""
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + content).hexdigest()


def live_model(log: Log, pipeline: Pipeline, settings: Settings, observed: WorkerObserver | None = None) -> LiveModel:
    """The model that serves; it follows the releases until it is closed. Raises BadKey, TopicMissing, Unreachable."""
    from tailrace.inference.serving.live_model import LiveModel
    from tailrace.monitoring.telemetry.observers import WorkerObserver

    observer = observed or WorkerObserver(None)

    def swapped(swap: Swap) -> None:
        old, new, pause_s, load_s, trained_through = swap
        observer.swapped(old, new, pause_s, load_s, trained_through)
        _log.info("swapped", old=old, new=new, pause_ms=round(pause_s * 1000, 4), load_ms=round(load_s * 1000, 1))

    def refused(refusal: RefusedRelease) -> None:
        version, reason, detail, serving = refusal
        observer.refused(version, reason)
        goes_on = f"release {serving} serves on" if serving else "serving the base rate"
        _log.error(f"release {version} refused ({detail}); {goes_on}", version=version, reason=reason, serving=serving)

    return LiveModel.follow(
        log, pipeline, keys=trusted_keys(settings), patience=FIRST_RELEASE_S, on_swap=swapped, on_refusal=refused
    )


def build_worker(
    log: Log,
    pipeline: Pipeline,
    settings: Settings,
    stack: ExitStack,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.time,
) -> Runner:
    """The worker's runner; its LiveModel follows the releases until `stack` closes. `clock`: see ScoreStep."""
    from tailrace.inference.models.spec import ModelSpec
    from tailrace.inference.serving.scoring import ScoreStep
    from tailrace.monitoring.telemetry.observers import WorkerObserver
    from tailrace.streams.runtime.batch_size import BatchSize
    from tailrace.streams.runtime.runner import Runner, RunnerConfig, Stateless

    observed = WorkerObserver(metrics)
    live = stack.enter_context(live_model(log, pipeline, settings, observed))
    step = ScoreStep(
        pipeline.schema,
        ModelSpec.of(pipeline).features,
        live,
        pipeline.topics.predictions,
        clock=clock,
        on_batch=observed.scored,
    )
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
    runner = Runner(log, Stateless(step), config, batch=batch, observer=observed)
    watch_lag(metrics, log, config.group, config.topics, observed.reached, lambda: runner.assignment)
    return runner


def build_joiner(log: Log, pipeline: Pipeline, settings: Settings, metrics: Metrics | None = None) -> Runner:
    """The joiner's runner. Raises TopicMissing when predictions and labels have different numbers of partitions."""
    from tailrace.monitoring.telemetry.observers import JoinerObserver
    from tailrace.streams.join.rekey import drained
    from tailrace.streams.join.step import JoinStep
    from tailrace.streams.runtime.runner import Runner, RunnerConfig

    topics, labels = pipeline.topics, join_labels(pipeline)
    _check_copartitioned(log, topics.predictions, labels)
    step = JoinStep(
        log,
        pipeline.policy,
        predictions=topics.predictions,
        labels=labels,
        examples=topics.examples,
        target=pipeline.task.number,
        fields=pipeline.label.fields,
        upstream=drained(log, _rekeyer(pipeline), topics.labels) if pipeline.label.rekey else None,
    )
    joiner = settings.joiner
    config = RunnerConfig(
        topics=(topics.predictions, labels),
        group=f"{pipeline.name}.joiner",
        writer=f"{pipeline.name}-joiner-{joiner.instance}",
        instance=joiner.instance,
        sharing=Sharing.TOGETHER,
        commit_interval=_commit_interval(joiner.commit_ms, settings),
    )
    observed = JoinerObserver(metrics, step)
    runner = Runner(log, step, config, observer=observed)
    watch_lag(metrics, log, config.group, config.topics, observed.reached, lambda: runner.assignment)
    return runner


def build_rekeyer(log: Log, pipeline: Pipeline, settings: Settings, metrics: Metrics | None = None) -> Runner:
    """The runner that copies labels into a topic keyed by the event id; `metrics` are told of dead letters alone."""
    from tailrace.monitoring.telemetry.observers import count_malformed
    from tailrace.streams.join.rekey import Rekey
    from tailrace.streams.runtime.runner import Runner, RunnerConfig, Stateless

    topics = pipeline.topics
    config = RunnerConfig(
        topics=(topics.labels,),
        group=_rekeyer(pipeline),
        writer=f"{pipeline.name}-rekeyer-{settings.joiner.instance}",
        instance=settings.joiner.instance,
        commit_interval=_commit_interval(settings.joiner.commit_ms, settings),
    )
    rekey = Rekey(pipeline.label.fields, topics.labels_by_id, on_malformed=count_malformed(metrics))
    return Runner(log, Stateless(rekey), config)


def watch_lag(
    metrics: Metrics | None,
    log: Log,
    group: str,
    topics: Sequence[str],
    reached: Reached | None = None,
    held: Callable[[], Collection[TopicPartition]] | None = None,
) -> None:
    """Export a group's lag in these metrics; see LagCollector."""
    if metrics:
        from tailrace.monitoring.telemetry.lag import LagCollector

        metrics.registry.register(LagCollector(log, group, topics, reached, held))


def _rekeyer(pipeline: Pipeline) -> str:
    return f"{pipeline.name}.rekeyer"


def _commit_interval(milliseconds: float | None, settings: Settings) -> float:
    if milliseconds is not None:
        return milliseconds / 1000
    return COMMIT_EMBEDDED_S if settings.log.url.startswith("sqlite:") else COMMIT_KAFKA_S


def _check_copartitioned(log: Log, predictions: str, labels: str) -> None:
    from tailrace.streams.log.base import TopicMissing

    left, right = log.partitions(predictions), log.partitions(labels)
    if left != right:
        raise TopicMissing(
            f"{predictions} has {left} partitions and {labels} {right}: the join needs the same number; "
            f"set Label(rekey=True), or create {predictions} anew with {right}"
        )
