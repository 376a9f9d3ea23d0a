"""The live tail (pure): a sample of the newest predictions, completed by their labels, and of the newest labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace.declaration.task import Kind, Task
from tailrace.monitoring.console.redaction import Redaction
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.records import Example, Prediction

SAMPLE = 4
"""Predictions, and labels, of one batch that become rows: nobody could read more."""
ROWS = 16
_UNLABELLED = 2_000  # predictions that still wait for their label


class LiveTail:
    """Rows of the live tail: newest predictions, each with its label once it is known. `task` interprets scores."""

    def __init__(self, task: Task, redaction: Redaction) -> None:
        self._task, self._redaction = task, redaction
        self._predicted: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._labelled: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._unlabelled: dict[str, dict[str, Any]] = {}  # rows of predictions by event id, oldest first

    def predicted(self, predictions: Sequence[Prediction]) -> None:
        """Add the last `SAMPLE` of a batch of predictions."""
        for prediction in predictions[-SAMPLE:]:
            row = self._row(prediction)
            self._predicted.append(row)
            self._unlabelled[prediction.id] = row
        while len(self._unlabelled) > _UNLABELLED:
            del self._unlabelled[next(iter(self._unlabelled))]

    def labelled(self, examples: Sequence[Example]) -> None:
        """Add a batch of examples: complete earlier rows with their labels, and add rows for the last `SAMPLE`."""
        for example in examples:
            row = self._unlabelled.pop(example.id, None)
            if row is not None:
                row |= self._label(example)
        for example in examples[-SAMPLE:]:
            self._labelled.append(self._row(example) | self._label(example))

    def section(self) -> dict[str, Any]:
        """Newest predictions and newest labels for the page, newest first."""
        return {"predicted": list(reversed(self._predicted)), "labelled": list(reversed(self._labelled))}

    def _row(self, scored: Prediction | Example) -> dict[str, Any]:
        try:
            event = msgspec.json.decode(scored.features)
        except UNDECODABLE:
            event = {}
        return {
            "id": self._redaction.field("id", scored.id),
            "time": scored.time,
            "release": scored.release,
            "scores": scored.scores,
            "answer": self._answer(scored.scores),
            "event": self._redaction.decoded(event),
        }

    def _label(self, example: Example) -> dict[str, Any]:
        """Label, its delay in seconds, and whether the prediction was correct (absent if the label does not fit)."""
        label = self._redaction.field("label", example.label)
        columns = {"label": label, "delay_s": max(0.0, example.label_time - example.time), "implicit": example.implicit}
        try:
            return columns | {"correct": self._correct(example)}
        except ValueError:
            return columns

    def _answer(self, scores: Sequence[float]) -> str:
        """The prediction as short text: the value, the probability, or the most probable class with its probability."""
        kind, classes = self._task.kind, self._task.classes
        if kind is Kind.REGRESSION:
            return f"{scores[0]:,.4g}"
        if kind is Kind.BINARY:
            return f"{scores[0]:.0%}"
        best = max(range(len(scores)), key=scores.__getitem__)
        return f"{classes[best]} {scores[best]:.0%}"

    def _correct(self, example: Example) -> bool | None:
        """True if the most probable class is the label; None for regression and multi-label. Raises ValueError."""
        kind, scores = self._task.kind, example.scores
        if kind is Kind.BINARY:
            return (scores[0] >= 0.5) == bool(self._task.number(example.label))
        if kind is Kind.MULTICLASS:
            return max(range(len(scores)), key=scores.__getitem__) == int(self._task.number(example.label))
        return None
