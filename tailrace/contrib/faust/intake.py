"""Batches for a Faust agent, done when the next is asked for: nothing is committed before.

Faust makes a message, two tasks and a place in a queue of every record, which takes ten times as long as scoring it;
`take` then collects them again, and acknowledges what it collected even when the agent fails on it. So an intake takes
its topic's records out of what the consumer's driver has fetched, before that, and commits through the driver. The
group, the assignment and rebalances are Faust's. Its monitor does not count what passes here.

Where other agents of the application read the same topic, all of them have to be done with a record before it is
committed: then the intake takes messages from the agent's queue, as `take` would, and acknowledges them afterwards.
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

_COMMIT_S = 0.5  # how often positions are committed while there is more to do


class Intake:
    """What an agent's stream, of one topic, brings, at most `largest` records at a time. Its context is to begin with
    the agent, before Faust fetches."""

    def __init__(self, app: App, stream: Any, largest: int) -> None:
        self._app, self._largest = app, largest
        self._topic = stream.channel.get_topic_name()
        self._queue = aiter(stream.channel).queue  # this makes Faust subscribe
        self._come = asyncio.Event()
        self._fetched: deque[tuple[Any, Any]] = deque()  # (topic-partition, record), all of one generation
        self._generation: int | None = None
        self._held: set[Any] = set()  # partitions that are not fetched from for now
        self._done: dict[Any, int] = {}
        self._committed = 0.0

    def __enter__(self) -> Intake:
        from faust.types import TP

        consumer = self._app.consumer
        fetch = self._fetch = consumer._getmany

        async def getmany(active_partitions: Any, timeout: float) -> Any:
            found = await fetch(active_partitions=active_partitions, timeout=timeout)
            # Without flow Faust drops all of it, and goes back to what is committed.
            if consumer.flow_active and len(self._app.topics._topic_name_index[self._topic]) == 1:
                for at in [at for at in found if at.topic == self._topic]:
                    self._put(TP(at.topic, at.partition), found.pop(at))
            return found

        consumer._getmany = getmany
        return self

    def __exit__(self, *_: object) -> None:
        self._app.consumer._getmany = self._fetch

    async def batches(self) -> AsyncIterator[Batch]:
        """What has come, again and again."""
        message = asyncio.ensure_future(self._queue.get())
        come = asyncio.ensure_future(self._come.wait())
        try:
            await asyncio.wait((message, come), return_when=asyncio.FIRST_COMPLETED)
            alone = come.done()
        finally:
            come.cancel()
            if not message.done():
                message.cancel()
        if not alone and isinstance(message.exception(), StopAsyncIteration):
            return  # so Faust tells that the stream is stopping
        batches = self._fetches() if alone else self._messages(message.result())
        async for batch in batches:
            yield batch

    # ---- alone: whole fetches

    async def _fetches(self) -> AsyncIterator[Batch]:
        while True:
            await self._come.wait()
            generation = self._generation
            taken = [self._fetched.popleft() for _ in range(min(self._largest, len(self._fetched)))]
            self._make_room()
            if not taken or generation != self._app.consumer_generation_id:
                continue  # of partitions that have moved: whoever has them now begins at what is committed
            yield Batch([_of_fetch(record) for _, record in taken])
            if generation == self._app.consumer_generation_id:
                self._done |= {at: record.offset + 1 for at, record in taken}
                await self._commit()

    def _put(self, at: Any, records: Sequence[Any]) -> None:
        if self._generation != self._app.consumer_generation_id:
            self._generation = self._app.consumer_generation_id
            self._fetched.clear()
            self._held.clear()
            self._done.clear()
        self._fetched.extend((at, record) for record in records)
        self._app.monitor.stream_inbound_time[at] = time.monotonic()  # else Faust takes the partition for stuck
        if len(self._fetched) >= 2 * self._largest:
            self._app.consumer.on_buffer_full(at)
            self._held.add(at)
        self._come.set()

    def _make_room(self) -> None:
        if not self._fetched:
            self._come.clear()
        if self._held and len(self._fetched) < self._largest:
            for at in self._held:
                self._app.consumer.on_buffer_drop(at)
            self._held.clear()

    async def _commit(self) -> None:
        """Commit what is done, when there is nothing else to do or it is time."""
        if self._fetched and time.monotonic() - self._committed < _COMMIT_S:
            return
        done, self._done = self._done, {}
        self._committed = time.monotonic()
        await self._app.consumer._commit(done)

    # ---- with others: messages

    async def _messages(self, first: Any) -> AsyncIterator[Batch]:
        """An event's generation tells whether its partition has moved since: then it comes again, to whoever has it."""
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


def _of_fetch(found: Any) -> Record:
    headers = tuple(found.headers or ())
    return Record(found.topic, found.partition, found.offset, found.timestamp, found.key, found.value, headers)


def _of_message(found: Any) -> Record:
    at, headers = round(found.timestamp * 1000), tuple(found.headers or ())
    return Record(found.topic, found.partition, found.offset, at, found.key, found.value, headers)
