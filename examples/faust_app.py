"""Faust application that scores payments and has an agent of its own.

    LOG=kafka://localhost:9092 faust -A faust_app worker

Run `tailrace joiner` and `tailrace retrainer` beside it.
"""

import json
import os
from collections.abc import AsyncIterator

import faust
from pipeline import pipeline

import tailrace.contrib.faust

app = faust.App("payments-app", broker=os.environ.get("LOG", "kafka://localhost:9092"))
tailrace.contrib.faust.attach(app, pipeline)


@app.agent(app.topic(pipeline.topics.predictions, value_serializer="raw"))
async def alarm(predictions: AsyncIterator[bytes]) -> None:
    """Print payments whose probability of fraud is above 0.9."""
    async for value in predictions:
        prediction = json.loads(value)
        if prediction["scores"][0] > 0.9:
            print("suspicious:", prediction["id"], flush=True)
