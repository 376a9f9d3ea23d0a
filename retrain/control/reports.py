"""Reports of runs and online updates (pure). The newest run's is a record of the models topic: key `run/latest`."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.records import Out, Record

KEY = b"run/latest"


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report of one run. `at`: its end on the wall clock; `since`: its start on the plan's clock; both unix seconds.

    `version`: the published release; `parent`: the champion that it was compared with (0: the base-rate model). It was
    trained on `examples`, of which `fresh` were new to the parent; `labels` had come since the last run. `seconds`: of
    the training loop; `total_s`: from the trigger to the end. `considered`: partition -> offset below which labels
    counted for it.
    """

    outcome: Literal["published", "refused", "failed"]
    reason: str
    detail: str
    trigger: str = "other"
    """Kind of the trigger: schedule, labels, age, drift, below, worthwhile, or the word of a user's own trigger."""
    parent: int
    since: float
    at: float
    examples: int
    fresh: int
    total_s: float
    labels: int = 0
    seconds: float = 0.0
    warm: bool = False
    device: str = ""
    version: int | None = None
    gate: GateResult | None = None
    considered: dict[int, int] = {}


class UpdateReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report of one update. `outcome`: published, refused by the guard, failed, or overtaken by a run or an operator.

    `seconds`: of learning; `total_s`: from its start to its end.
    """

    outcome: str
    detail: str
    labels: int
    version: int | None
    loss: float
    seconds: float
    total_s: float


def run_record(topic: str, report: RunReport) -> Out:
    """Return the record that replaces the previous report."""
    return Out(topic, KEY, msgspec.json.encode(report))


def read_report(record: Record) -> RunReport | None:
    """Return the report in a record of the models topic; None for another kind of record, or an unknown shape."""
    if record.key != KEY or record.value is None:
        return None
    try:
        return msgspec.json.decode(record.value, type=RunReport)
    except UNDECODABLE:
        return None
