"""A Faust application that scores payments beside an agent of its own.

    LOG=kafka://localhost:9092 faust -A faust_app worker

`tailrace joiner` and `tailrace retrainer` run beside it, as they would beside `tailrace worker`.
"""

import json
import os

import faust
from pipeline import pipeline

import tailrace.contrib.faust

app = faust.App("payments-app", broker=os.environ.get("LOG", "kafka://localhost:9092"))
tailrace.contrib.faust.attach(app, pipeline)


@app.agent(app.topic(pipeline.topics.predictions, value_serializer="raw"))
async def alarm(predictions: faust.StreamT[bytes]) -> None:
    """Whatever else the application does with what was predicted."""
    async for value in predictions:
        prediction = json.loads(value)
        if prediction["scores"][0] > 0.9:
            print("suspicious:", prediction["id"], flush=True)
