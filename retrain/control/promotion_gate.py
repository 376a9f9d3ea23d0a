"""Promotion gate (pure): decides whether a candidate may replace the champion.

Both are scored on the same newest matured examples that neither has learned. Their losses are compared example by
example, so that the difficulty of an example cancels out.

A candidate is refused if the whole confidence interval of the mean paired difference is on the worse side. A candidate
that is as good within noise passes, since it knows newer data.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.gate import Gate, Metric
from tailrace.declaration.task import Kind
from tailrace.inference.models.losses import Scores, Targets, losses


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a comparison. A value of None was not measured.

    `candidate` and `champion`: mean losses (for accuracy: the error rate). `difference`: candidate minus champion, with
    its interval [low, high]; below 0 the candidate is better.
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


def compare(gate: Gate, kind: Kind, candidate: Scores, champion: Scores | None, targets: Targets) -> GateResult:
    """Compare scores [n, outputs] (probabilities; the value for regression) on targets [n].

    `champion` None: there is none yet, the candidate passes when its scores are finite.
    """
    metric = gate.metric_for(kind)
    count = len(targets)
    if not np.isfinite(candidate).all():
        return GateResult(passed=False, reason="the candidate's scores are not finite", metric=metric, examples=count)
    loss = losses(metric, kind, candidate, targets)
    mean = float(loss.mean()) if count else None
    if champion is None:
        return GateResult(passed=True, reason="there is no champion yet", metric=metric, examples=count, candidate=mean)
    if count < gate.min_examples:
        reason = f"only {count} examples to judge by, {gate.min_examples} are needed"
        return GateResult(passed=False, reason=reason, metric=metric, examples=count, candidate=mean)
    return _compare(gate.confidence, metric, loss, losses(metric, kind, champion, targets))


def _compare(
    confidence: float, metric: Metric, candidate: NDArray[np.float64], champion: NDArray[np.float64]
) -> GateResult:
    paired = candidate - champion
    difference = float(paired.mean())
    spread = NormalDist().inv_cdf((1 + confidence) / 2) * float(paired.std(ddof=1)) / math.sqrt(len(paired))
    low, high = difference - spread, difference + spread
    word = "worse" if low > 0 else "better" if high < 0 else "as good within noise"
    return GateResult(
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
