"""Pipelines with different options of a declaration, in a separate module that the training process also loads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tailrace import Category, Event, EventTime, Key, Label, Number, Pipeline, Training, feature
from tailrace.triggers import Labels


class Reading(Event):
    """A number and a colour."""

    id: Key
    at: EventTime
    x: Number
    colour: Category

    @feature
    def squared(self) -> float:
        """Square of `x`."""
        return self.x * self.x


class Own(nn.Module):
    """A user-defined network whose only input is `squared`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits, shape [n, 1]."""
        logits: Tensor = self.layer(numbers[:, 1:])
        return logits


def declare(label: Label, **options: Any) -> Pipeline:
    """Return a pipeline that starts a run after 150 labels."""
    plan = Training(min_examples=60, holdout_least=50, epochs=40, batch_size=16, learning_rate=0.03)
    return Pipeline("rows", event=Reading, label=label, retrain=[Labels(150)], training=plan, **options)


plain = declare(Label("y"))
rekeyed = declare(Label("y", rekey=True, fields={"id": "of", "label": "is", "time": "when"}), model=Own)
implicit = declare(Label("y", missing=0, wait="10m"))
last = declare(Label("y", wins="last", wait="10m"))
largest = declare(Label("y", wins="max", wait="10m"))
classes = declare(Label("y", kind="multiclass", classes=["low", "mid", "high"]))
several = declare(Label("y", kind="multilabel", classes=["positive", "large"], missing=[]))
mean = declare(Label("y", kind="regression", wins="mean", wait="10m"))
