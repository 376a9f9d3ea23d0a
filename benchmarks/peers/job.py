"""The job that all contenders do: decode an event, score it with an 8-64-64-1 network, write the prediction as JSON.

    {"id", "ts", "x": [8 numbers]}
    --> {"id", "time", "release", "scores", "features": the event, "source": [partition, offset]}

Keyed by id. Those with our batched code inside score with torch; those written by hand with numpy, which is quicker for
few rows. The weights are the same. Our worker tells the garbage collector to leave alone what start-up made; here the
peers do so too, for torch is imported everywhere, and else a collection would walk through it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.workload import NUMBERS, Reading, pipeline
from tailrace.declaration.event import to_seconds
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.serving.live_model import LiveModel
from tailrace.inference.serving.scoring import ScoreStep

WIDTH = 64
NAME = "peers"


class Network(nn.Module):
    """8-64-64-1, made of one seed, so that every process has the same weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.Sequential(
                nn.Linear(NUMBERS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
            )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Logits [n, 1]."""
        logits: Tensor = self.layers(numbers)
        return logits


class Job(msgspec.Struct, frozen=True):
    """Where to read, write, and find keys. `delivery` is for our worker, whose choice it is."""

    bootstrap: str
    predictions: str
    keys: str
    delivery: str = "at_least_once"

    @property
    def declared(self) -> Pipeline:
        """The pipeline, writing to this job's own topic."""
        return pipeline(NAME, online=False, model=Network, predictions=self.predictions)


def given() -> Job:
    """In a child: what to do; from the environment, because some peers have command lines of their own."""
    torch.set_num_threads(1)
    return msgspec.json.decode(os.environ["PEERS_JOB"], type=Job)


def started_step(job: Job) -> ScoreStep:
    """Our score step with a live model: the batched code that we give to peers that take batches."""
    declared = job.declared
    live = LiveModel.follow(f"kafka://{job.bootstrap}", declared, keys=Path(job.keys))
    live.start()
    return ScoreStep(declared.schema, ModelSpec.of(declared).features, live, job.predictions)


class Plain:
    """The same job by hand: what one would write inside of a peer."""

    def __init__(self) -> None:
        layers: Any = Network().layers
        self._weights = [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()) for layer in layers[::2]]
        self._decoder, self._encoder = msgspec.json.Decoder(Reading), msgspec.json.Encoder()

    def scores(self, x: Sequence[Sequence[float]]) -> list[float]:
        """The probability of each row."""
        h = np.array(x, np.float32)
        (w1, b1), (w2, b2), (w3, b3) = self._weights
        h = np.maximum(h @ w1 + b1, 0)
        h = np.maximum(h @ w2 + b2, 0)
        found: list[float] = (1 / (1 + np.exp(-(h @ w3 + b3))))[:, 0].tolist()
        return found

    def decode(self, value: bytes) -> Reading:
        """An event."""
        return self._decoder.decode(value)

    def encode(self, event: Reading, score: float, source: tuple[int, int]) -> bytes:
        """A prediction."""
        return self._encoder.encode(
            {
                "id": event.id,
                "time": to_seconds(event.ts),
                "release": 1,
                "scores": [score],
                "features": event,
                "source": source,
            }
        )
