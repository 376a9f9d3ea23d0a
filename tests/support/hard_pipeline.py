"""Pipeline whose model raises for some events and ends its process for others; the roles of tests load this file."""

from __future__ import annotations

import os
import signal
import time

from msgspec import field
from torch import Tensor, nn

from tailrace import Event, EventTime, Key, Label, Number, Pipeline
from tailrace.triggers import Labels

RAISES, KILLS = 13.0, 666.0  # values of x


class Moody(nn.Module):
    """A linear model that raises, or ends its process, for a batch with certain values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits, shape [n, 1]."""
        values = set(numbers[:, 0].tolist())
        if RAISES in values:
            raise RuntimeError("an unlucky number")
        if KILLS in values:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal may arrive a little later
        logits: Tensor = self.layer(numbers)
        return logits


class Thing(Event):
    """An event with a list that is no feature, which predictions repeat."""

    id: Key
    at: EventTime
    x: Number
    more: list[float] = field(default_factory=list)


def declare(name: str, *, rekey: bool = False, retrains: bool = False) -> Pipeline:
    """Return the pipeline under this name; with `retrains`, a run is due after a hundred thousand labels."""
    label = Label("y", wait="1h", rekey=rekey)
    runs = [Labels(100_000)] if retrains else []
    return Pipeline(name, event=Thing, label=label, model=Moody, online=False, retrain=runs)


pipeline = declare(os.environ.get("HARD_NAME", "hard"))
retraining = declare(os.environ.get("HARD_NAME", "hard"), retrains=True)
