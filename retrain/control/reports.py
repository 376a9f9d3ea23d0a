"""What a run came to (pure), as a record that any viewer can follow: key `run/latest` in the models topic."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.streams.log.records import Out, Record

KEY = b"run/latest"


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Unix seconds: `at` is its end on the wall clock, `since` its start on the clock that triggers follow.

    `version` is what was published, `parent` the champion it was compared with (0: the base rate). `examples` were
    trained on, `fresh` of them new to the parent; `labels` had come since the last run. `seconds`: the training loop;
    `total_s`: from the trigger to the end. `considered`: partition -> offset below which labels counted for it.
    """

    outcome: Literal["published", "refused", "failed"]
    reason: str
    detail: str
    trigger: str = "other"
    """The kind of trigger that was due: schedule, labels, age, drift, below, worthwhile; of a user's own, its word."""
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
    """One update. `outcome`: published, refused by the guard, failed, or overtaken by a run or an operator. Seconds:
    `seconds` of learning, `total_s` from its begin to the end."""

    outcome: str
    detail: str
    labels: int
    version: int | None
    loss: float
    seconds: float
    total_s: float


def run_record(topic: str, report: RunReport) -> Out:
    """The record that replaces the previous report."""
    return Out(topic, KEY, msgspec.json.encode(report))


def read_report(record: Record) -> RunReport | None:
    """The report in a record of the models topic; None when it is another kind of record, or of an unknown shape."""
    if record.key != KEY or record.value is None:
        return None
    try:
        return msgspec.json.decode(record.value, type=RunReport)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
