"""Bytewax contender: Tailrace's score step over Bytewax's Kafka connectors.

python -m bytewax.run benchmarks.peers.bytewax_flow
"""

from __future__ import annotations

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow

from benchmarks.peers.job import given, started_step
from tailrace.streams.log.base import Batch
from tailrace.streams.log.records import Record
from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector

job = given()
step = started_step(job)
topic, brokers = job.declared.topics.events, [job.bootstrap]


def score(messages: list[KafkaSourceMessage]) -> list[KafkaSinkMessage]:
    """Score a batch as Tailrace's worker does."""
    records = [Record(topic, m.partition, m.offset, m.timestamp[1], m.key, m.value) for m in messages]
    return [KafkaSinkMessage(out.key, out.value) for out in step(Batch(records))]


flow = Dataflow("scores")
events = op.input("events", flow, KafkaSource(brokers, [topic], batch_size=4_096))
scored = op.flat_map_batch("score", events, score)
op.output("predictions", scored, KafkaSink(brokers, job.predictions, add_config={"partitioner": "murmur2_random"}))
freeze_garbage_collector()
