"""The promotion gate as declared (pure): the metric, and how sure a comparison must be."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from tailrace.declaration.task import Kind
from tailrace.errors import DeclarationError

Metric: TypeAlias = Literal["log_loss", "brier", "accuracy", "squared_error"]

_CLASSIFICATION = ("log_loss", "brier", "accuracy")
_METRICS = (*_CLASSIFICATION, "squared_error")


class Gate(msgspec.Struct, frozen=True):
    """How a candidate is judged. Without a metric: log_loss, and squared_error for regression. Raises DeclarationError.

    `confidence` of the interval, 0.5 to 1 (exclusive); with fewer than `min_examples` a champion is never replaced.
    """

    metric: Metric | None = None
    confidence: float = 0.95
    min_examples: int = 50

    def __post_init__(self) -> None:
        if self.metric is not None and self.metric not in _METRICS:
            raise DeclarationError(f"Gate(metric={self.metric!r}): the metrics are {', '.join(_METRICS)}")
        if not 0.5 <= self.confidence < 1:
            raise DeclarationError(f"Gate(confidence={self.confidence!r}): it must be at least 0.5 and below 1")
        if self.min_examples < 2:
            raise DeclarationError(f"Gate(min_examples={self.min_examples!r}): it must be at least 2")

    def metric_for(self, kind: Kind) -> Metric:
        """The metric for a kind of task. Raises DeclarationError when the declared one does not fit it."""
        metric = self.metric or ("squared_error" if kind is Kind.REGRESSION else "log_loss")
        if (kind is Kind.REGRESSION) != (metric == "squared_error"):
            fitting = "squared_error" if kind is Kind.REGRESSION else ", ".join(_CLASSIFICATION)
            raise DeclarationError(f"Gate({metric!r}) cannot judge a {kind} label: use {fitting}")
        return metric
