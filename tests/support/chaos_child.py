"""Stand-ins for the roles, without a model: python chaos_child.py URL PIPELINE worker|joiner; SIGTERM drains."""

from __future__ import annotations

import signal
import sys
import threading

import msgspec
from support.chaos import WAIT, Names

from tailrace.declaration.event import Event, EventTime, Key, schema_of
from tailrace.declaration.label import JoinPolicy
from tailrace.streams.join.step import JoinStep
from tailrace.streams.log.base import Batch, Sharing
from tailrace.streams.log.codec import EventCodec, encode
from tailrace.streams.log.records import Out, Prediction, Source
from tailrace.streams.log.url import open_log
from tailrace.streams.runtime.runner import Runner, RunnerConfig
from tailrace.streams.runtime.step import Stateless


class Thing(Event):
    """Event of the sender."""

    id: Key
    at: EventTime
    x: int


class Score:
    """Step from events to predictions with a constant score, as a stand-in for a worker's step."""

    def __init__(self, names: Names) -> None:
        self._codec, self._topic = EventCodec(schema_of(Thing)), names.predictions

    def __call__(self, batch: Batch) -> list[Out]:
        decoded = self._codec.decode(batch.records, now=4e9)
        outs = []
        for id, time, event, record in zip(decoded.ids, decoded.times, decoded.events, decoded.records, strict=True):
            source = Source(record.partition, record.offset)
            prediction = Prediction(id, time, 1, [0.5], msgspec.Raw(encode(event)), source)
            outs.append(Out(self._topic, id.encode(), encode(prediction), (), int(time * 1000)))
        return outs


def main(url: str, pipeline: str, role: str) -> None:
    log, names = open_log(url), Names.of(pipeline)
    group, writer = f"{pipeline}.{role}", f"{pipeline}-{role}-a"
    if role == "worker":
        step = Stateless(Score(names))
        runner = Runner(log, step, RunnerConfig((names.events,), group, writer, "a", commit_interval=0.01))
    else:
        _, predictions, labels, examples = names
        join = JoinStep(log, JoinPolicy(WAIT), predictions=predictions, labels=labels, examples=examples)
        topics = (predictions, labels)
        config = RunnerConfig(topics, group, writer, "a", Sharing.TOGETHER, commit_interval=0.01)
        runner = Runner(log, join, config)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("started", flush=True)
    runner.run(stop)
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
