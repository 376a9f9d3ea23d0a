"""Factory: build the log, topics, keys and runners of a pipeline from its declaration and the settings."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import structlog

from tailrace.app.settings import Settings
from tailrace.app.topic_retention import topic_retention
from tailrace.declaration.pipeline import Pipeline
from tailrace.streams.log.base import Log, Unreachable
from tailrace.streams.log.topology import topology

if TYPE_CHECKING:
    from tailrace.inference.releases.signing import SigningKey, TrustedKeys
    from tailrace.inference.releases.storage import Store
    from tailrace.inference.serving.live_model import LiveModel
    from tailrace.inference.serving.notifications import RefusedRelease, Swap
    from tailrace.monitoring.telemetry.metrics import Metrics
    from tailrace.monitoring.telemetry.observers import WorkerObserver
    from tailrace.streams.join.step import JoinStep
    from tailrace.streams.runtime.step import Stateless

FIRST_RELEASE_S = 10.0
"""Seconds that a starting worker waits at most for the current release before it serves the base rate."""

_log = structlog.get_logger(__name__)


def open_configured_log(settings: Settings) -> Log:
    """Open the configured log; create the directory of an embedded log. Raises Unreachable, BadUrl."""
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
    """Create the missing topics of the pipeline. Raises BadSetting; see `topic_retention`.

    If the labels topic of the join exists, the new topics get its number of partitions, which the join requires. Else
    they get the configured number.
    """
    existing = log.partitions(join_labels(pipeline))
    log.create(topology(pipeline, existing or settings.log.partitions, topic_retention(pipeline, settings)))


def join_labels(pipeline: Pipeline) -> str:
    """Return the labels topic that the join reads: the declared topic, or its copy that is keyed by the event id."""
    return pipeline.topics.labels_by_id if pipeline.label.rekey else pipeline.topics.labels


def trusted_keys(settings: Settings) -> TrustedKeys:
    """Return the public keys whose releases are served. Raise BadKey if there are none.

    No key is created here: a worker that created its own key would not trust the retrainer.
    """
    from tailrace.inference.releases.signing import some_keys

    return some_keys(_public_keys(settings), settings.keys.directory)


def signing_key(settings: Settings) -> SigningKey:
    """Return the key that signs releases; create it if there is none. Raise BadKey if it is not trusted."""
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
    """Return the store of large weights; None if all weights are written to the log. Raises StoreUnreachable."""
    from tailrace.inference.releases.storage import Store, check_store

    releases = settings.releases
    if releases.store is None:
        return None
    check_store(releases.store)
    return Store(releases.store, releases.inline_max_bytes)


def code_digest(pipeline: Pipeline) -> str:
    """SHA-256 (hex) of the code that training depends on: the versions of Tailrace and torch, and the source of the
    module that declares the event."""
    from importlib.metadata import version

    source = inspect.getsourcefile(pipeline.schema.event)
    parts = [f"tailrace {version('tailrace')}", f"torch {version('torch')}"]
    content = Path(source).read_bytes() if source else b""
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + content).hexdigest()


def live_model(log: Log, pipeline: Pipeline, settings: Settings, observer: WorkerObserver | None = None) -> LiveModel:
    """Return the serving model, which follows the releases until it is closed.

    Raises BadKey, TopicMissing, Unreachable.
    """
    from tailrace.inference.serving.live_model import LiveModel
    from tailrace.monitoring.telemetry.observers import WorkerObserver

    observer = observer or WorkerObserver(None)

    def swapped(swap: Swap) -> None:
        old, new, pause_s, load_s, trained_through = swap
        observer.swapped(old, new, pause_s, load_s, trained_through)
        _log.info("swapped", old=old, new=new, pause_ms=round(pause_s * 1000, 4), load_ms=round(load_s * 1000, 1))

    def refused(refusal: RefusedRelease) -> None:
        version, reason, detail, serving = refusal
        observer.refused(version, reason)
        fallback = f"still serving release {serving}" if serving else "serving the base rate"
        _log.error(f"release {version} refused ({detail}); {fallback}", version=version, reason=reason, serving=serving)

    return LiveModel.follow(
        log, pipeline, keys=trusted_keys(settings), patience=FIRST_RELEASE_S, on_swap=swapped, on_refusal=refused
    )


def score_step(
    log: Log,
    pipeline: Pipeline,
    settings: Settings,
    stack: ExitStack,
    observer: WorkerObserver,
    clock: Callable[[], float] = time.time,
) -> Stateless:
    """Build the step of a worker. Its predictions leave room for the label in their examples."""
    from tailrace.inference.models.spec import ModelSpec
    from tailrace.inference.serving.scoring import ScoreStep
    from tailrace.streams.join.label_codec import LABEL_ROOM
    from tailrace.streams.runtime.step import Stateless

    topics = pipeline.topics
    live = stack.enter_context(live_model(log, pipeline, settings, observer))
    step = ScoreStep(
        pipeline.schema,
        ModelSpec.of(pipeline).features,
        live,
        topics.predictions,
        clock=clock,
        limit=min(log.record_limit(topics.predictions), log.record_limit(topics.examples) - LABEL_ROOM),
        on_batch=observer.scored,
    )
    return Stateless(step)


def join_step(log: Log, pipeline: Pipeline) -> JoinStep:
    """Build the step of a joiner. Raise TopicMissing if predictions and labels differ in partition count."""
    from tailrace.streams.join.label_codec import label_codec
    from tailrace.streams.join.rekey import drained
    from tailrace.streams.join.step import JoinStep

    topics, labels = pipeline.topics, join_labels(pipeline)
    _check_copartitioned(log, topics.predictions, labels)
    return JoinStep(
        log,
        pipeline.policy,
        predictions=topics.predictions,
        labels=labels,
        examples=topics.examples,
        target=pipeline.task.number,
        codec=label_codec(pipeline.label.fields, pipeline.schema.label_ids),
        upstream=drained(log, rekeyer_group(pipeline), topics.labels) if pipeline.label.rekey else None,
    )


def rekey_step(log: Log, pipeline: Pipeline, metrics: Metrics | None = None) -> Stateless:
    """Build the step that copies labels to a topic keyed by the event id; `metrics` count its dead letters."""
    from tailrace.monitoring.telemetry.observers import count_malformed
    from tailrace.streams.join.label_codec import label_codec
    from tailrace.streams.join.rekey import Rekey
    from tailrace.streams.runtime.step import Stateless

    topic = pipeline.topics.labels_by_id
    limit = log.record_limit(topic)
    codec = label_codec(pipeline.label.fields, pipeline.schema.label_ids)
    return Stateless(Rekey(codec, topic, on_malformed=count_malformed(metrics), limit=limit))


def rekeyer_group(pipeline: Pipeline) -> str:
    """Return the consumer group of the runner that copies labels."""
    return f"{pipeline.name}.rekeyer"


def _check_copartitioned(log: Log, predictions: str, labels: str) -> None:
    from tailrace.streams.log.base import TopicMissing

    left, right = log.partitions(predictions), log.partitions(labels)
    if left != right:
        raise TopicMissing(
            f"{predictions} has {left} partitions and {labels} {right}: the join needs the same number; "
            f"set Label(rekey=True), or recreate {predictions} with {right} partitions"
        )
