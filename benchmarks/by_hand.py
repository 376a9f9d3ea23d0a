"""Hand-written baseline: the worker's job as a plain loop over librdkafka, in a child process.

Delivery is at least once: predictions are delivered before the positions of their events are committed. The loop has no
dead letters, swaps, rebalances or retries. With `frozen` the garbage collector ignores the objects made at start-up, as
the worker's does; few hand-written loops do that.
"""

from __future__ import annotations

import gc
import threading
import time

import msgspec
import numpy as np
import torch
from confluent_kafka import Consumer, Producer

from benchmarks.harness import job, say, when_stopped
from benchmarks.worker import Job
from benchmarks.workload import NUMBERS, Reading, pipeline
from tailrace.declaration.event import Instant, to_seconds
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import verify
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.releases.weights import load_state
from tailrace.streams.log.base import TopicPartition
from tailrace.streams.log.url import open_log

_BATCH = 4_096


class Scored(msgspec.Struct, gc=False):
    """A prediction with the same JSON form as `tailrace.streams.log.records.Prediction`."""

    id: str
    time: Instant
    release: int
    scores: list[float]
    features: Reading
    source: tuple[int | None, int | None]


class Report(msgspec.Struct, frozen=True):
    """Result of a run. `seconds` count from the first batch read to the last commit."""

    events: int
    seconds: float


def load(job: Job) -> torch.nn.Module:
    """Build the module of release 1 from the models topic."""
    log, topic, registry = open_log(job.url), TopicPartition(job.topics.models, 0), Registry()
    for records in log.scan(topic, 0, log.end_positions(topic.topic)[topic]):
        registry.apply(records)
    log.close()
    payload = registry.payload(1) or b""
    verify(registry.releases[1].signed, payload, TrustedKeys([job.key.encode()]))
    declared = pipeline(job.name)
    module = ModelSpec.of(declared).build().eval()
    module.load_state_dict(load_state(payload))
    return module


def run(job: Job, stop: threading.Event) -> Report:
    """Read, score, write and commit until `job.events` are done, or until `stop` is set."""
    module = load(job)
    servers = {"bootstrap.servers": job.url.removeprefix("kafka://")}
    consumer = Consumer(
        servers
        | {
            "group.id": job.topics.predictions,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 5,
            "fetch.queue.backoff.ms": 2,
        }
    )
    producer = Producer(
        servers
        | {"linger.ms": job.linger_ms, "partitioner": "murmur2_random", "queue.buffering.max.messages": 1_000_000}
    )
    decoder, encode = msgspec.json.Decoder(list[Reading]), msgspec.json.Encoder().encode
    if job.frozen:
        gc.freeze()
    none = torch.empty((_BATCH, 0), dtype=torch.int64)
    consumer.subscribe([job.topics.events], on_assign=lambda *_: say("ready"))
    done, started, committed = 0, 0.0, 0.0
    while not stop.is_set() and (not job.events or done < job.events):
        first = consumer.poll(0.02)
        if first is None:
            continue
        messages = [m for m in (first, *consumer.consume(_BATCH - 1, 0)) if not m.error()]
        started = started or time.perf_counter()
        events = decoder.decode(b"[" + b",".join([m.value() or b"" for m in messages]) + b"]")
        x = np.array([event.x for event in events], np.float32).reshape(len(events), NUMBERS)
        with torch.inference_mode():
            scores = module(torch.from_numpy(x), none[: len(events)]).sigmoid().tolist()
        for message, event, score in zip(messages, events, scores, strict=True):
            source, id = (message.partition(), message.offset()), str(event.id)
            value = encode(Scored(id, event.ts, 1, score, event, source))
            producer.produce(job.topics.predictions, value, id, timestamp=int(to_seconds(event.ts) * 1000))
        producer.poll(0)
        done += len(messages)
        if time.perf_counter() - committed > job.commit_interval or 0 < job.events <= done:
            producer.flush()
            consumer.commit(asynchronous=False)
            committed = time.perf_counter()
    seconds = time.perf_counter() - started
    consumer.close()
    return Report(done, seconds)


def main() -> None:
    """Run the job given on the command line and report the result to the parent."""
    torch.set_num_threads(1)
    say(run(job(Job), when_stopped()))


if __name__ == "__main__":
    main()
