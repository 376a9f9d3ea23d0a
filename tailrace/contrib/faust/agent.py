"""Agents of a Faust application: one scores events in micro-batches, one keeps a view of the newest predictions.

    Faust's consumer --fetched records--> intake --> step --> writer --delivered--> positions of Faust's group

Delivery is at least once. After a crash or a rebalance, uncommitted events are scored and written again. A position is
committed only after the predictions below it were delivered, so none is lost. An event that cannot be scored, or a
prediction that cannot be delivered, ends the application; after a restart it continues from the committed positions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog

from tailrace.contrib.faust.intake import Intake
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Aborted, Batch, Writer
from tailrace.streams.log.records import Out

if TYPE_CHECKING:
    from faust import App, Table

Work: TypeAlias = Callable[[Batch], None]
_PATIENCE_S = 60.0  # seconds for which an undeliverable batch is retried
_PAUSES_S = (0.1, 5.0)  # first and longest pause between two attempts
_NEWEST = 50  # predictions that the view lists
_VIEWED = 100  # predictions per batch of the view: each change of its table is a message
_log = structlog.get_logger(__name__)


def delivering(step: Callable[[Batch], Sequence[Out]], writer: Writer) -> Work:
    """Make a function that applies the step to a batch and returns once its records are delivered.

    The function raises the errors of the step, and Aborted after a minute without a delivery.
    """

    def work(batch: Batch) -> None:
        outs = step(batch)
        backoff = Backoff(*_PAUSES_S)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                writer.write(outs)
                return writer.flush()
            except Aborted as aborted:
                writer.abort()
                if time.monotonic() > deadline:
                    raise
                _log.warning("predictions not delivered, trying again", error=str(aborted))
            time.sleep(backoff.pause())

    return work


def score_agent(
    app: App, name: str, topic: str, opened: Callable[[], AbstractContextManager[Work]], largest: int = 4_096
) -> None:
    """Add the agent `name`, which processes the records of a topic in batches of at most `largest`.

    `opened` is entered when the agent starts, and gives the function that processes a batch. Both run in a thread of
    their own, so that Faust's event loop can send heartbeats meanwhile.
    """

    async def score(stream: Any) -> None:
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        with Intake(app, stream, largest) as intake, pool as thread, ExitStack() as open_:
            try:
                work = await loop.run_in_executor(thread, lambda: open_.enter_context(opened()))
                async for batch in intake.batches():
                    await loop.run_in_executor(thread, work, batch)
            except Exception as error:
                await app.crash(error)
                raise

    app.agent(_raw(app, topic), name=name)(score)


def newest_view(app: App, name: str, topic: str, partitions: int, keep: int) -> Table:
    """Add a table of the newest value of each key of a topic, the agent that fills it, and a web view.

    GET /<name>/ lists the newest 50 of this worker. GET /<name>/<key>/ returns one, from the worker that holds it.
    `keep`: maximum number of keys per worker; the oldest are removed. `partitions`: number of partitions of the topic.
    """
    from faust import Schema

    table = app.Table(
        name,
        schema=Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"),
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        use_partitioner=True,  # as the topic's writers do: a change lands in the partition of its key
    )

    async def remember(stream: Any) -> None:
        with Intake(app, stream, _VIEWED) as intake:
            async for batch in intake.batches():
                for record in batch.records:
                    table[record.key] = record.value
                for key in list(islice(table.keys(), max(0, len(table) - keep))):
                    table.pop(key)
                await asyncio.sleep(0)  # let other tasks of the event loop run

    async def listed(web: Any, request: Any) -> Any:
        newest = list(table.values())[: -_NEWEST - 1 : -1]
        return web.bytes(b"[" + b",\n".join(newest) + b"]\n", content_type="application/json")

    async def one(web: Any, request: Any, key: str) -> Any:
        prediction = table.get(key.encode())
        if prediction is None:
            return web.bytes(
                b'{"error": "there is no prediction of this id"}\n', content_type="application/json", status=404
            )
        return web.bytes(prediction + b"\n", content_type="application/json")

    app.agent(_raw(app, topic), name=f"{name}-view")(remember)
    app.page(f"/{name}/", name=f"{name}-list")(listed)
    app.page(f"/{name}/{{key}}/", name=f"{name}-one")(app.table_route(table, match_info="key")(one))
    return table


def _raw(app: App, topic: str) -> Any:
    return app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
