"""Web service that scores payments over HTTP with the current release.

LOG=kafka://localhost:9092 uvicorn fastapi_app:app
curl localhost:8000/score --json '[{"id": "p1", "at": 1767225600, "country": "NL", "amount": 12.5}]'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pipeline import pipeline

from tailrace import LiveModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Follow the releases while the service runs."""
    with LiveModel.follow(os.environ.get("LOG", "sqlite:///.tailrace/log.db"), pipeline) as app.state.live:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/score")
def score(payments: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Return the probability of fraud of each payment, and the release that computed it."""
    try:
        release, scores = request.app.state.live.predict(payments)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return {"release": release, "scores": scores[:, 0].tolist()}
