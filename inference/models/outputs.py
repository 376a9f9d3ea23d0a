"""Outputs of a module: raw logits become scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailrace.declaration.task import Kind, Task

if TYPE_CHECKING:
    from torch import Tensor


def activate(task: Task, logits: Tensor) -> Tensor:
    """Convert a module's raw output into scores [n, outputs]: probabilities, or values.

    One output may come without its dimension. Raises ValueError for any other shape.
    """
    rows = len(logits)
    if logits.numel() != rows * task.outputs:
        expected = (rows, task.outputs)
        raise ValueError(f"the module returned shape {tuple(logits.shape)} for {rows} rows, expected {expected}")
    return predicted(task.kind, logits.reshape(rows, task.outputs))


def predicted(kind: Kind, logits: Tensor) -> Tensor:
    """Convert logits [..., outputs] into probabilities, or values."""
    if kind in (Kind.BINARY, Kind.MULTILABEL):
        return logits.sigmoid()
    return logits.softmax(-1) if kind is Kind.MULTICLASS else logits
