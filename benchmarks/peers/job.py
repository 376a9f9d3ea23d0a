"""Job of all contenders: decode an event, score it with an 8-64-64-1 network, write the prediction as JSON.

    {"id", "ts", "x": [8 numbers]}
    --> {"id", "time", "release", "scores", "features": the event, "source": [partition, offset]}

Records are keyed by id. Contenders with Tailrace's batched code score with torch; hand-written ones score with numpy,
which is faster for few rows. The weights are the same. All contenders make the garbage collector ignore the objects
made at start-up, as Tailrace's worker does: torch is imported everywhere, and a collection would visit its objects.
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
    """Network of 8-64-64-1 units from a fixed seed, so that every process has the same weights."""

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
    """Broker, output topic and key directory of a contender. `delivery` applies to Tailrace's worker alone."""

    bootstrap: str
    predictions: str
    keys: str
    delivery: str = "at_least_once"

    @property
    def declared(self) -> Pipeline:
        """Pipeline that writes to the topic of this job."""
        return pipeline(NAME, online=False, model=Network, predictions=self.predictions)


def given() -> Job:
    """Read the job of this process from the environment, because some peers have command lines of their own."""
    torch.set_num_threads(1)
    return msgspec.json.decode(os.environ["PEERS_JOB"], type=Job)


def started_step(job: Job) -> ScoreStep:
    """Start a live model and return Tailrace's score step for it, which peers that take batches call."""
    declared = job.declared
    live = LiveModel.follow(f"kafka://{job.bootstrap}", declared, keys=Path(job.keys))
    return ScoreStep(declared.schema, ModelSpec.of(declared).features, live, job.predictions)


class Plain:
    """The job as hand-written code inside a peer."""

    def __init__(self) -> None:
        layers: Any = Network().layers
        self._weights = [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()) for layer in layers[::2]]
        self._decoder, self._encoder = msgspec.json.Decoder(Reading), msgspec.json.Encoder()

    def scores(self, x: Sequence[Sequence[float]]) -> list[float]:
        """Compute the probability of each row."""
        h = np.array(x, np.float32)
        (w1, b1), (w2, b2), (w3, b3) = self._weights
        h = np.maximum(h @ w1 + b1, 0)
        h = np.maximum(h @ w2 + b2, 0)
        probabilities: list[float] = (1 / (1 + np.exp(-(h @ w3 + b3))))[:, 0].tolist()
        return probabilities

    def decode(self, value: bytes) -> Reading:
        """Decode an event."""
        return self._decoder.decode(value)

    def encode(self, event: Reading, score: float, source: tuple[int, int]) -> bytes:
        """Encode a prediction."""
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
