"""Values that `retrain.control.core` returns (pure): runs due, under way or judged, results of updates."""

from __future__ import annotations

from typing import NamedTuple

from tailrace.declaration.facts import Due, Facts
from tailrace.inference.releases.manifest import Updates
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.run import Run


class RunDue(NamedTuple):
    """A run that a trigger requests, and the facts on which the trigger decided."""

    due: Due
    facts: Facts


class RunUnderWay(NamedTuple):
    """A run that was started. `considered`: partition -> offset below which examples count for it.

    `moves`: how often the champion had been moved by an operator before it started.
    """

    run: Run
    considered: dict[int, int]
    moves: int


class RunResult(NamedTuple):
    """Result of a run. `parent`: the champion that its release replaces if the gate has passed it."""

    run: Run
    gate: GateResult
    parent: int


class UpdateResult(NamedTuple):
    """An update that the guard has passed. `positions`: partition -> offset below which its release has learned all."""

    lineage: Updates
    parent: int
    labels: int
    trained_through: float
    positions: dict[int, int]


class UpdateEnd(NamedTuple):
    """An update that gave no release. `outcome`: "refused", "failed" or "overtaken".

    `skipped`: its labels are left out, so that the committed positions may move past them. `rest`: a pause should
    follow.
    """

    outcome: str
    detail: str
    labels: int
    skipped: bool
    rest: bool = False
