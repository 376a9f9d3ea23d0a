"""A tiny declared pipeline for the retraining tests, loaded by name in the training process too."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from tailrace import Category, Event, EventTime, Key, Label, Number, Online, Pipeline, Training
from tailrace.inference.models.hooks import OnlineModule
from tailrace.streams.log.records import Example, Out, Source
from tailrace.triggers import Labels, Schedule

LOADER = "tailrace.app.pipeline_file:load_pipeline"
START = 1_700_000_000.0


class Reading(Event):
    """A number that decides the label, a number without effect, and a colour."""

    id: Key
    at: EventTime
    x: Number
    noise: Number | None = None
    colour: Category


class Stubborn(OnlineModule):
    """A network that fails in the way that the environment variable MOOD names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits that depend only on `x`, shape [n, 1]."""
        logits: Tensor = self.layer(numbers[:, :1])
        return logits

    def prepare(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> None:
        """Sleep, raise, run out of memory or diverge."""
        mood = os.environ.get("MOOD")
        if mood == "slow":
            time.sleep(60)
        if mood == "raise":
            raise RuntimeError("this model is in a bad mood")
        if mood == "memory":
            raise MemoryError("too much")
        if mood == "diverge":
            self.layer.weight.data.fill_(torch.nan)


class Odd(Stubborn):
    """A network with a buffer of a dtype that releases do not support."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("odd", torch.zeros(2, dtype=torch.uint16))


class Idle(Stubborn):
    """A network with a layer that `forward` does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(3, 3)


class Normalised(nn.Module):
    """A network with BatchNorm, which cannot train on one row alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits that depend only on `x`, shape [n, 1]."""
        logits: Tensor = self.layers(numbers[:, :1])
        return logits


class Raising(nn.Module):
    """A network without hooks, which raises if the environment variable MOOD is set to that."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits that depend only on `x`, shape [n, 1]."""
        if os.environ.get("MOOD") == "raise":
            raise RuntimeError("this model is in a bad mood")
        logits: Tensor = self.layer(numbers[:, :1])
        return logits


class Bare(Event):
    """A reading without noise and colour."""

    id: Key
    at: EventTime
    x: Number


PLAN = Training(min_examples=60, holdout_least=50, epochs=20, batch_size=32, learning_rate=0.003)
pipeline = Pipeline(
    "tiny", event=Reading, label=Label("big", base_rate=0.5), retrain=[Labels(200)], online=False, training=PLAN
)
stubborn = Pipeline(
    "tiny",
    event=Reading,
    label=Label("big", base_rate=0.5),
    retrain=[Labels(200)],
    online=False,
    training=msgspec.structs.replace(PLAN, learning_rate=0.01),
    model=Stubborn,
)
odd = Pipeline(
    "tiny",
    event=Reading,
    label=Label("big", base_rate=0.5),
    retrain=[Labels(200)],
    online=False,
    training=msgspec.structs.replace(PLAN, learning_rate=0.01),
    model=Odd,
)
idle = Pipeline(
    "tiny", event=Reading, label=Label("big", base_rate=0.5), retrain=[Labels(200)], training=PLAN, model=Idle
)
normalised = Pipeline(
    "tiny", event=Reading, label=Label("big", base_rate=0.5), retrain=[Labels(200)], training=PLAN, model=Normalised
)
swayed = Pipeline(
    "tiny",
    event=Reading,
    label=Label("big", base_rate=0.5),
    retrain=[Labels(200)],
    online=False,
    training=msgspec.structs.replace(PLAN, learning_rate=0.05, replay=0),
)
hourly = Pipeline(
    "tiny",
    event=Reading,
    label=Label("big", base_rate=0.5),
    retrain=[Schedule("0 * * * *")],
    online=False,
    training=msgspec.structs.replace(PLAN, clock="event"),
)
online = Pipeline(
    "tiny", event=Reading, label=Label("big", base_rate=0.5), online=Online(labels=50, seconds=0.0), training=PLAN
)
both = Pipeline(
    "tiny",
    event=Reading,
    label=Label("big", base_rate=0.5),
    online=Online(labels=50, seconds=0.0),
    retrain=[Labels(400)],
    training=msgspec.structs.replace(PLAN, epochs=5),
)


def onlines(**options: Any) -> Pipeline:
    """Return the pipeline `online` with other options."""
    given: dict[str, Any] = {"event": Reading, "online": Online(labels=50, seconds=0.0), "training": PLAN, **options}
    return Pipeline("tiny", label=Label("big", base_rate=0.5), **given)


raising = onlines(model=Raising)
bare = onlines(event=Bare)
narrow = onlines(online=Online(labels=50, seconds=0.0, window=100))
lengthy = onlines(retrain=[Labels(400)], training=msgspec.structs.replace(PLAN, epochs=100))


def examples(count: int, start: int = 0, *, flip: bool = False, step: float = 1.0) -> Iterator[Example]:
    """Return examples from number `start` on, `step` seconds apart; nine of ten labels are x > 0 (flipped: x < 0)."""
    for n in range(start, start + count):
        chance = random.Random(n)
        x, at = chance.gauss(0.0, 1.0), START + n * step
        label = (x > 0) != (chance.random() < 0.1) != flip
        event = Reading(id=f"r{n}", at=at, x=x, colour=chance.choice(["red", "green"]))
        raw = msgspec.Raw(msgspec.json.encode(event))
        yield Example(f"r{n}", at, at + 60, label, 0, [0.5], raw, Source(0, n))


def records(topic: str, some: Iterator[Example], partitions: int = 2) -> list[Out]:
    """Return the records of examples as the join writes them."""
    encode = msgspec.json.encode
    return [Out(topic, e.id.encode(), encode(e), partition=e.source.offset % partitions) for e in some]
