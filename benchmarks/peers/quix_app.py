"""Quix Streams contender: the job row by row, at least once (the default of Quix Streams)."""

from __future__ import annotations

from quixstreams import Application, message_context

from benchmarks.peers.job import Plain, given
from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector


def main() -> None:
    """Score until the process is terminated."""
    job, plain = given(), Plain()
    app = Application(broker_address=job.bootstrap, consumer_group=job.predictions, auto_offset_reset="earliest")
    events = app.topic(job.declared.topics.events, key_deserializer="bytes", value_deserializer="bytes")
    predictions = app.topic(job.predictions, key_serializer="bytes", value_serializer="bytes")

    def score(value: bytes) -> bytes:
        event, context = plain.decode(value), message_context()
        (probability,) = plain.scores([event.x])
        return plain.encode(event, probability, (context.partition, context.offset))

    app.dataframe(events).apply(score).to_topic(predictions)  # the key stays: events are keyed by id
    freeze_garbage_collector()
    app.run()


if __name__ == "__main__":
    main()
