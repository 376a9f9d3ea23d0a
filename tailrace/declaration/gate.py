"""Declaration of the promotion gate (pure): the metric, and how certain a comparison must be."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.task import Kind
from tailrace.declaration.validation import check_field
from tailrace.errors import DeclarationError

Metric: TypeAlias = Literal["log_loss", "brier", "accuracy", "squared_error"]

_CLASSIFICATION = ("log_loss", "brier", "accuracy")
_METRICS = (*_CLASSIFICATION, "squared_error")


@with_field_docs
class Gate(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Rules by which a candidate replaces the champion. Raises DeclarationError for a value outside its range."""

    metric: Metric | None = None
    """Metric of the comparison. None: log_loss for classification, squared_error for regression."""
    confidence: float = 0.95
    """Confidence level of the interval of the difference, 0.5 <= confidence < 1."""
    min_examples: int = 50
    """Held-out examples below which the champion is never replaced, >= 2."""

    def __post_init__(self) -> None:
        if self.metric is not None and self.metric not in _METRICS:
            raise DeclarationError(f"Gate(metric={self.metric!r}): the metrics are {', '.join(_METRICS)}")
        check_field(self, "confidence", 0.5 <= self.confidence < 1, "at least 0.5 and below 1")
        check_field(self, "min_examples", self.min_examples >= 2, "at least 2")

    def metric_for(self, kind: Kind) -> Metric:
        """The metric for a kind of task. Raises DeclarationError if the declared metric does not fit it."""
        metric = self.metric or ("squared_error" if kind is Kind.REGRESSION else "log_loss")
        if (kind is Kind.REGRESSION) != (metric == "squared_error"):
            fitting = "squared_error" if kind is Kind.REGRESSION else ", ".join(_CLASSIFICATION)
            raise DeclarationError(f"Gate({metric!r}) cannot judge a {kind} label: use {fitting}")
        return metric
