"""Faust contender: an agent as in Faust's documentation, in micro-batches.

faust -A benchmarks.peers.faust_agent worker
"""

from __future__ import annotations

from typing import Any

import faust

from benchmarks.peers.job import Plain, given
from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector

job, plain = given(), Plain()
app = faust.App(job.predictions, broker=f"kafka://{job.bootstrap}", topic_disable_leader=True)
events = app.topic(job.declared.topics.events, value_type=bytes, value_serializer="raw")
predictions = app.topic(job.predictions, value_type=bytes, value_serializer="raw", key_serializer="raw")


@app.agent(events)
async def score(stream: Any) -> None:
    """Take up to 1,024 events, score them together and send each prediction."""
    async for taken in stream.take_events(1_024, within=0.1):
        decoded = [plain.decode(event.value) for event in taken]
        scores = plain.scores([event.x for event in decoded])
        for event, score, source in zip(decoded, scores, taken, strict=True):
            value = plain.encode(event, score, (source.message.partition, source.message.offset))
            await predictions.send(key=str(event.id).encode(), value=value)


freeze_garbage_collector()
