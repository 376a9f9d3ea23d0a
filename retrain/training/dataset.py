"""Rows as arrays to learn from, and the golden batch that is published with the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from tailrace.inference.models.columns import Floats
    from tailrace.inference.models.encoding import Inputs
    from tailrace.inference.models.spec import ModelSpec
    from tailrace.inference.releases.manifest import Golden

GOLDEN_ROWS = 16
GOLDEN_BYTES = 200_000  # of the golden batch: the manifest has a size limit, so fewer wide rows fit


class EventRows(Protocol):
    """Rows of a message: the events as JSON, and the values of the user functions."""

    @property
    def features(self) -> list[bytes]: ...
    @property
    def derived(self) -> Sequence[list[float | None] | None]: ...


def encoded(spec: ModelSpec, rows: EventRows) -> Inputs:
    """Encode the rows of a message. Each is valid JSON that was parsed before, so joined they are a JSON array."""
    events = msgspec.json.decode(b"[" + b",".join(rows.features) + b"]", type=list[spec.features.event])  # type: ignore[name-defined]
    derived = None if any(row is None for row in rows.derived) else rows.derived
    return spec.features.encode(events, derived)  # type: ignore[arg-type]


def golden(inputs: Inputs, scores: Floats) -> Golden:
    """Make the golden batch: the newest rows with the module's scores [n, outputs], as many as fit into GOLDEN_BYTES.

    It has at least one row and at most GOLDEN_ROWS.
    """
    from tailrace.inference.releases.manifest import Golden

    rows = GOLDEN_ROWS
    while True:
        batch = Golden.of(inputs.take(slice(-rows, None)), scores[-rows:])
        if rows == 1 or len(msgspec.json.encode(batch)) <= GOLDEN_BYTES:
            return batch
        rows //= 2
