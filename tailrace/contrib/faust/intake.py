"""Batches of records for a Faust agent. A batch counts as processed when the next one is requested, not before.

Faust turns each record into a message, two tasks and a queue entry, which takes ten times as long as scoring it. Its
`take` collects the messages again, and acknowledges them even if the agent fails. An intake therefore takes the records
of its topic directly from the fetches of the consumer's driver, and commits through the driver. The consumer group, the
assignment and rebalances remain Faust's. Faust's monitor does not count these records.

If other agents of the application read the same topic, a record may be committed only after all of them processed it.
The intake then takes messages from the agent's queue, as `take` does, and acknowledges them after processing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from tailrace.streams.log.base import Batch
from tailrace.streams.log.records import Record

if TYPE_CHECKING:
    from faust import App

_COMMIT_S = 0.5  # seconds between commits while more records are waiting


class Intake:
    """Source of batches of at most `largest` records from an agent's stream of one topic.

    Its context must be entered when the agent starts, before Faust fetches.
    """

    def __init__(self, app: App, stream: Any, largest: int) -> None:
        self._app, self._largest = app, largest
        self._topic = stream.channel.get_topic_name()
        self._queue = aiter(stream.channel).queue  # makes Faust subscribe to the topic
        self._arrived = asyncio.Event()
        self._fetched: deque[tuple[Any, Any]] = deque()  # (topic-partition, record), all of one generation
        self._generation: int | None = None
        self._paused: set[Any] = set()  # topic-partitions
        self._processed: dict[Any, int] = {}  # topic-partition -> next offset
        self._committed = 0.0

    def __enter__(self) -> Intake:
        from faust.types import TP

        consumer = self._app.consumer
        fetch = self._fetch = consumer._getmany

        async def getmany(active_partitions: Any, timeout: float) -> Any:
            fetched = await fetch(active_partitions=active_partitions, timeout=timeout)
            # While the flow is stopped, Faust discards the fetch and returns to the committed positions.
            if consumer.flow_active and len(self._app.topics._topic_name_index[self._topic]) == 1:
                for at in [at for at in fetched if at.topic == self._topic]:
                    self._put(TP(at.topic, at.partition), fetched.pop(at))
            return fetched

        consumer._getmany = getmany
        return self

    def __exit__(self, *_: object) -> None:
        self._app.consumer._getmany = self._fetch

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield batches until the stream stops."""
        message = asyncio.ensure_future(self._queue.get())
        arrived = asyncio.ensure_future(self._arrived.wait())
        try:
            await asyncio.wait((message, arrived), return_when=asyncio.FIRST_COMPLETED)
            alone = arrived.done()
        finally:
            arrived.cancel()
            if not message.done():
                message.cancel()
        if not alone and isinstance(message.exception(), StopAsyncIteration):
            return  # this is how Faust reports that the stream is stopping
        batches = self._fetches() if alone else self._messages(message.result())
        async for batch in batches:
            yield batch

    # ---- the only agent of the topic: whole fetches

    async def _fetches(self) -> AsyncIterator[Batch]:
        while True:
            await self._arrived.wait()
            generation = self._generation
            taken = [self._fetched.popleft() for _ in range(min(self._largest, len(self._fetched)))]
            self._make_room()
            if not taken or generation != self._app.consumer_generation_id:
                continue  # revoked partitions: their new owner begins at the committed positions
            yield Batch([_of_fetch(record) for _, record in taken])
            if generation == self._app.consumer_generation_id:
                self._processed |= {at: record.offset + 1 for at, record in taken}
                await self._commit()

    def _put(self, at: Any, records: Sequence[Any]) -> None:
        if self._generation != self._app.consumer_generation_id:
            self._generation = self._app.consumer_generation_id
            self._fetched.clear()
            self._paused.clear()
            self._processed.clear()
        self._fetched.extend((at, record) for record in records)
        self._app.monitor.stream_inbound_time[at] = time.monotonic()  # otherwise Faust considers the partition stuck
        if len(self._fetched) >= 2 * self._largest:
            self._app.consumer.on_buffer_full(at)
            self._paused.add(at)
        self._arrived.set()

    def _make_room(self) -> None:
        if not self._fetched:
            self._arrived.clear()
        if self._paused and len(self._fetched) < self._largest:
            for at in self._paused:
                self._app.consumer.on_buffer_drop(at)
            self._paused.clear()

    async def _commit(self) -> None:
        """Commit processed records if no others are waiting, or if the last commit is half a second ago."""
        if self._fetched and time.monotonic() - self._committed < _COMMIT_S:
            return
        processed, self._processed = self._processed, {}
        self._committed = time.monotonic()
        await self._app.consumer._commit(processed)

    # ---- several agents of the topic: messages

    async def _messages(self, first: Any) -> AsyncIterator[Batch]:
        """Yield the queued events in batches, each acknowledged once it has been processed.

        Events of an older generation are skipped: their partitions moved, and the new owner receives them again.
        """
        while True:
            events = [first]
            while len(events) < self._largest and not self._queue.empty():
                events.append(self._queue.get_nowait())
            events = [event for event in events if self._is_ours(event)]
            for event in events:
                if not event.message.tracked:
                    event.message.tracked = True
                    self._app.consumer.track_message(event.message)
            if events:
                yield Batch([_of_message(event.message) for event in events])
            for event in events:
                if self._is_ours(event):
                    event.ack()
            try:
                first = await self._queue.get()
            except StopAsyncIteration:
                return

    def _is_ours(self, event: Any) -> bool:
        ours: bool = event.message.generation_id == self._app.consumer_generation_id
        return ours


def _of_fetch(record: Any) -> Record:
    headers = tuple(record.headers or ())
    return Record(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, headers)


def _of_message(message: Any) -> Record:
    timestamp_ms, headers = round(message.timestamp * 1000), tuple(message.headers or ())
    return Record(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value, headers)
