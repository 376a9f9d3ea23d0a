"""Scores in a Quix Streams job, always by the current release:

    LOG=kafka://localhost:9092 python quix_job.py

Quix hands on one event after another; `tailrace worker` scores the same in batches, many times as fast.
"""

import os
from typing import Any

from pipeline import pipeline
from quixstreams import Application

from tailrace import LiveModel

LOG = os.environ.get("LOG", "kafka://localhost:9092")


def main() -> None:
    """Score until told to stop."""
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
