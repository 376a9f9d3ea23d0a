"""The gate (pure): may a candidate replace the champion?

Both are scored on the same newest matured examples that neither learned from; their losses are compared example by
example, so that what makes an example hard cancels out.

Rule: refused when the whole confidence interval of the mean paired difference lies on the worse side. So a candidate
that is as good within noise passes (it knows newer data), one that is worse beyond noise does not.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.multilabel import unpacked
from inference.task import Kind
from streams.events import DeclarationError

Metric: TypeAlias = Literal["log_loss", "brier", "accuracy", "squared_error"]
Scores: TypeAlias = NDArray[np.float32]
Targets: TypeAlias = NDArray[np.float32]

_CLASSIFICATION = ("log_loss", "brier", "accuracy")
_METRICS = (*_CLASSIFICATION, "squared_error")
_SMALLEST = 1e-6  # a probability is never taken as less: one certain mistake must not decide alone


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate said.

    `candidate` and `champion` are mean losses (accuracy: the error rate), `difference` is candidate minus champion with
    its interval [low, high]: below 0 the candidate is better. None where nothing was compared.
    """

    passed: bool
    reason: str
    metric: str
    examples: int
    candidate: float | None = None
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


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

    def judge(self, kind: Kind, candidate: Scores, champion: Scores | None, targets: Targets) -> Verdict:
        """Compare scores [n, outputs] (probabilities; the value for regression) on targets [n].

        `champion` None: there is none yet, the candidate passes when its scores are finite.
        """
        metric = self.metric_for(kind)
        count = len(targets)
        if not np.isfinite(candidate).all():
            return Verdict(passed=False, reason="the candidate's scores are not finite", metric=metric, examples=count)
        loss = losses(metric, kind, candidate, targets)
        mean = float(loss.mean()) if count else None
        if champion is None:
            return Verdict(
                passed=True, reason="there is no champion yet", metric=metric, examples=count, candidate=mean
            )
        if count < self.min_examples:
            reason = f"only {count} examples to judge by, {self.min_examples} are needed"
            return Verdict(passed=False, reason=reason, metric=metric, examples=count, candidate=mean)
        return self._compare(metric, loss, losses(metric, kind, champion, targets))

    def _compare(self, metric: Metric, candidate: NDArray[np.float64], champion: NDArray[np.float64]) -> Verdict:
        paired = candidate - champion
        difference = float(paired.mean())
        spread = NormalDist().inv_cdf((1 + self.confidence) / 2) * float(paired.std(ddof=1)) / math.sqrt(len(paired))
        low, high = difference - spread, difference + spread
        word = "worse" if low > 0 else "better" if high < 0 else "as good within noise"
        return Verdict(
            passed=low <= 0,
            reason=f"{metric} {candidate.mean():.4f} against {champion.mean():.4f} on {len(paired):,} examples: {word}",
            metric=metric,
            examples=len(paired),
            candidate=float(candidate.mean()),
            champion=float(champion.mean()),
            difference=difference,
            low=low,
            high=high,
        )


def losses(metric: Metric, kind: Kind, scores: Scores, targets: Targets) -> NDArray[np.float64]:
    """Loss of each example [n], lower is better; scores [n, outputs] as served, targets [n]. Of a multi-label one it is
    the mean of its labels' own."""
    given: NDArray[np.float64] = scores.astype(np.float64)
    truth: NDArray[np.float64] = targets.astype(np.float64)
    loss: NDArray[np.float64]
    if kind is Kind.REGRESSION:
        loss = (given[:, 0] - truth) ** 2
        return loss
    if kind is Kind.MULTILABEL:
        flags = unpacked(targets, scores.shape[1])
        each = losses(metric, Kind.BINARY, scores.reshape(-1, 1), flags.reshape(-1))
        loss = each.reshape(flags.shape).mean(axis=1)
        return loss
    if kind is Kind.BINARY:
        given = np.column_stack((1 - given[:, 0], given[:, 0]))
    index = truth.astype(np.int64)
    right = given[np.arange(len(index)), index]
    if metric == "accuracy":
        loss = (given.argmax(axis=1) != index).astype(np.float64)
    elif metric == "log_loss":
        loss = -np.log(np.maximum(right, _SMALLEST))
    else:  # brier: the sum over classes of (p - [class is right])^2
        loss = (given**2).sum(axis=1) - 2 * right + 1
    return loss
