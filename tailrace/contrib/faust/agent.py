"""The steps of a pipeline inside a Faust application: a score agent that takes micro-batches, and a view of the newest
predictions.

    Faust's consumer --what has come--> intake --> step --> writer --delivered--> committed for Faust's group

At least once: after a crash anywhere in between, or a rebalance, the events that were not committed come again, and are
scored and written again. No position is committed before the predictions below it are delivered, so none is left out.
What cannot be scored or delivered ends the application: whoever restarts it goes on where it stopped.
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
_PATIENCE_S = 60.0  # how long predictions that cannot be delivered are tried again
_PAUSES_S = (0.1, 5.0)  # first and longest pause between two tries
_NEWEST = 50  # predictions that the view lists
_VIEWED = 100  # predictions that the view takes at once: each change of its table is a message
_log = structlog.get_logger(__name__)


def delivering(step: Callable[[Batch], Sequence[Out]], writer: Writer) -> Work:
    """What is to be done with a batch: the step, and its records delivered when this returns. Raises what the step
    raises, and Aborted when there was no delivering for a minute."""

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
                _log.warning("predictions not delivered, trying again", why=str(aborted))
            time.sleep(backoff.pause())

    return work


def score_agent(
    app: App, name: str, topic: str, opened: Callable[[], AbstractContextManager[Work]], largest: int = 4_096
) -> None:
    """Add the agent `name`, which gives the records of a topic to the work, at most `largest` at a time.

    `opened` is entered when the agent starts, in the thread in which the work is done then: Faust's event loop has its
    heartbeats to send meanwhile.
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
    """Add the agent and table `name`, of the newest value of each key of a topic, and its web view.

    GET /<name>/ lists the newest of this worker, GET /<name>/<key>/ gives one, from whichever worker has it. `keep`:
    how many keys a worker keeps; the oldest go. `partitions`: as many as the topic has.
    """
    from faust import Schema

    table = app.Table(
        name,
        schema=Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"),
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        use_partitioner=True,  # that of the topic's own writers: a key's change lies where the key does
    )

    async def remember(stream: Any) -> None:
        with Intake(app, stream, _VIEWED) as intake:
            async for batch in intake.batches():
                for record in batch.records:
                    table[record.key] = record.value
                for key in list(islice(table.keys(), max(0, len(table) - keep))):
                    table.pop(key)
                await asyncio.sleep(0)  # the loop has others to serve

    async def listed(web: Any, request: Any) -> Any:
        newest = list(table.values())[: -_NEWEST - 1 : -1]
        return web.bytes(b"[" + b",\n".join(newest) + b"]\n", content_type="application/json")

    async def one(web: Any, request: Any, key: str) -> Any:
        found = table.get(key.encode())
        if found is None:
            return web.bytes(
                b'{"error": "there is no prediction of this id"}\n', content_type="application/json", status=404
            )
        return web.bytes(found + b"\n", content_type="application/json")

    app.agent(_raw(app, topic), name=f"{name}-view")(remember)
    app.page(f"/{name}/", name=f"{name}-list")(listed)
    app.page(f"/{name}/{{key}}/", name=f"{name}-one")(app.table_route(table, match_info="key")(one))
    return table


def _raw(app: App, topic: str) -> Any:
    return app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
