"""Bytewax dataflow that scores batches of payments with the current release.

LOG=kafka://localhost:9092 python -m bytewax.run bytewax_job
"""

import os

import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from pipeline import pipeline

from tailrace import LiveModel

LOG = os.environ.get("LOG", "kafka://localhost:9092")
brokers = LOG.removeprefix("kafka://").split(",")

live = LiveModel.follow(LOG, pipeline)
live.start()


def score(batch: list[KafkaSourceMessage]) -> list[KafkaSinkMessage]:
    """Make one record for each payment: its id, the release and the probability of fraud."""
    payments = [msgspec.json.decode(message.value) for message in batch]
    release, scores = live.predict(payments)
    return [
        KafkaSinkMessage(
            payment["id"].encode(),
            msgspec.json.encode({"id": payment["id"], "release": release, "fraud": probability}),
        )
        for payment, probability in zip(payments, scores[:, 0].tolist(), strict=True)
    ]


flow = Dataflow("scores")
events = op.input("events", flow, KafkaSource(brokers, [pipeline.topics.events]))
scored = op.flat_map_batch("score", events, score)
op.output("scores", scored, KafkaSink(brokers, f"{pipeline.name}.bytewax-scores"))
