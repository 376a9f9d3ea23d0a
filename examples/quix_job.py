"""Quix Streams job that scores payments with the current release.

    LOG=kafka://localhost:9092 python quix_job.py

Quix Streams passes on one event at a time. `tailrace worker` scores batches and is several times as fast.
"""

import os
from typing import Any

from pipeline import pipeline
from quixstreams import Application

from tailrace import LiveModel

LOG = os.environ.get("LOG", "kafka://localhost:9092")


def main() -> None:
    """Score payments until the process is stopped."""
    app = Application(
        broker_address=LOG.removeprefix("kafka://"),
        consumer_group=f"{pipeline.name}.quix",
        auto_offset_reset="earliest",
    )
    events = app.topic(pipeline.topics.events, value_deserializer="json")
    scores = app.topic(f"{pipeline.name}.quix-scores", value_serializer="json")
    with LiveModel.follow(LOG, pipeline) as live:

        def score(event: dict[str, Any]) -> dict[str, Any]:
            release, ((probability,),) = live.predict([event])
            return {"id": event["id"], "release": release, "fraud": float(probability)}

        app.dataframe(events).apply(score).to_topic(scores, key=lambda scored: scored["id"])
        app.run()


if __name__ == "__main__":
    main()
