"""Attachment of a pipeline to a Faust application:

    app = faust.App("payments", broker="kafka://localhost:9092")
    tailrace.contrib.faust.attach(app, pipeline)

`faust -A myapp worker` then scores the pipeline's events beside the other agents of the application. Joiner and
retrainer run in processes of their own (`tailrace joiner`, `tailrace retrainer`). Delivery is at least once: see
docs/faust.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tailrace.app.factory import create_topics, live_model, open_configured_log, trusted_keys
from tailrace.app.settings import Settings, load_settings
from tailrace.contrib.faust.agent import Work, delivering, newest_view, score_agent
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.serving.scoring import ScoreStep

if TYPE_CHECKING:
    from faust import App, Table

KAFKA_PORT = 9092


def attach(
    app: App, pipeline: Pipeline, settings: Settings | None = None, *, view: bool = True, keep: int = 10_000
) -> None:
    """Add agents to a Faust application that score the pipeline's events, always with the current release.

    The agent `<name>.score` writes predictions and dead letters. With `view`, an agent and a table `<name>.newest` keep
    the newest `keep` predictions of each worker and show them at /<name>.newest/ on Faust's web port.

    `settings`: default from tailrace.toml and the environment. If `log.url` names no Kafka, the application's broker is
    used. TLS and passwords must be set as options of the log; those of the application apply to Faust only.
    """
    settings = settings or load_settings().settings
    tables = []
    if view:
        newest = f"{pipeline.name}.newest"
        tables.append(newest_view(app, newest, pipeline.topics.predictions, settings.log.partitions, keep))
    score_agent(
        app,
        f"{pipeline.name}.score",
        pipeline.topics.events,
        lambda: _opened(pipeline, _on_kafka(settings, app)),
        settings.worker.batch_max,
    )

    def prepare(*_: Any, **__: Any) -> None:
        _prepare(pipeline, _on_kafka(settings, app), tables)

    app.on_worker_init.connect(prepare, weak=False)


def _on_kafka(settings: Settings, app: App) -> Settings:
    if settings.log.url.startswith("kafka:"):
        return settings
    hosts = ",".join(f"{url.host}:{url.port or KAFKA_PORT}" for url in app.conf.broker)
    return settings.model_copy(update={"log": settings.log.model_copy(update={"url": f"kafka://{hosts}"})})


def _prepare(pipeline: Pipeline, settings: Settings, tables: list[Table]) -> None:
    """Before the worker starts: create the topics, and give tables as many partitions as their source topic."""
    log = open_configured_log(settings)
    try:
        create_topics(log, pipeline, settings)
        for table in tables:
            table.partitions = table.changelog_topic.partitions = log.partitions(pipeline.topics.predictions)
    finally:
        log.close()
    trusted_keys(settings)


@contextmanager
def _opened(pipeline: Pipeline, settings: Settings) -> Iterator[Work]:
    log = open_configured_log(settings)
    try:
        with live_model(log, pipeline, settings) as live:
            writer = log.writer(f"{pipeline.name}-faust")
            try:
                step = ScoreStep(pipeline.schema, ModelSpec.of(pipeline).features, live, pipeline.topics.predictions)
                yield delivering(step, writer)
            finally:
                writer.close()
    finally:
        log.close()
