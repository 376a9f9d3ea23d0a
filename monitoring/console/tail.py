"""The live tail (pure): newest predictions, sampled, each with its label when it comes; and newest labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace.declaration.task import Kind, Task
from tailrace.monitoring.console.redaction import Mask
from tailrace.streams.log.records import Example, Prediction

SAMPLE = 4
"""Predictions, and labels, of one batch that are shown: more could not be read."""
ROWS = 16
_WAITING = 2_000  # predictions shown once whose label is still looked out for


class Tail:
    """Rows as the page has them. `task` says what scores and labels mean."""

    def __init__(self, task: Task, mask: Mask) -> None:
        self._task, self._mask = task, mask
        self._predicted: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._labelled: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._waiting: dict[str, dict[str, Any]] = {}

    def predicted(self, predictions: Sequence[Prediction]) -> None:
        """The newest of a batch of predictions; pass the last few."""
        for said in predictions[-SAMPLE:]:
            row = self._row(said)
            self._predicted.append(row)
            self._waiting[said.id] = row
        while len(self._waiting) > _WAITING:
            del self._waiting[next(iter(self._waiting))]

    def labelled(self, examples: Sequence[Example]) -> None:
        """A batch of examples: labels that came."""
        for example in examples:
            row = self._waiting.pop(example.id, None)
            if row is not None:
                row |= self._label(example)
        for example in examples[-SAMPLE:]:
            self._labelled.append(self._row(example) | self._label(example))

    def section(self) -> dict[str, Any]:
        """Newest first."""
        return {"predicted": list(reversed(self._predicted)), "labelled": list(reversed(self._labelled))}

    def _row(self, said: Prediction | Example) -> dict[str, Any]:
        try:
            event = msgspec.json.decode(said.features)
        except msgspec.DecodeError:
            event = {}
        shown = self._mask.value(event)
        return {
            "id": self._mask.named("id", said.id),
            "time": said.time,
            "release": said.release,
            "scores": said.scores,
            "said": self._said(said.scores),
            "event": shown,
        }

    def _label(self, example: Example) -> dict[str, Any]:
        label = self._mask.named("label", example.label)
        told = {"label": label, "after": max(0.0, example.label_time - example.time), "implicit": example.implicit}
        try:
            return told | {"right": self._right(example)}
        except ValueError:
            return told

    def _said(self, scores: Sequence[float]) -> str:
        """The answer in a word."""
        kind, classes = self._task.kind, self._task.classes
        if kind is Kind.REGRESSION:
            return f"{scores[0]:,.4g}"
        if kind is Kind.BINARY:
            return f"{scores[0]:.0%}"
        best = max(range(len(scores)), key=scores.__getitem__)
        return f"{classes[best]} {scores[best]:.0%}"

    def _right(self, example: Example) -> bool | None:
        """Whether the likeliest answer was the true one; None where there is no such thing."""
        kind, scores = self._task.kind, example.scores
        if kind is Kind.BINARY:
            return (scores[0] >= 0.5) == bool(self._task.number(example.label))
        if kind is Kind.MULTICLASS:
            return max(range(len(scores)), key=scores.__getitem__) == int(self._task.number(example.label))
        return None
