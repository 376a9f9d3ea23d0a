"""What a training process makes of rows: arrays to learn from, and the golden batch that goes with the weights."""

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
GOLDEN_BYTES = 200_000  # of the golden batch in the manifest, which has a limit: wide rows are fewer


class Encodable(Protocol):
    """Rows as they travel: JSON of the event, derived values."""

    @property
    def features(self) -> list[bytes]: ...
    @property
    def derived(self) -> Sequence[list[float | None] | None]: ...


def encoded(spec: ModelSpec, rows: Encodable) -> Inputs:
    """The rows as arrays. Each is a JSON value that was parsed before, so together they are a JSON array."""
    events = msgspec.json.decode(b"[" + b",".join(rows.features) + b"]", type=list[spec.features.event])  # type: ignore[name-defined]
    derived = None if any(row is None for row in rows.derived) else rows.derived
    return spec.features.encode(events, derived)  # type: ignore[arg-type]


def golden(inputs: Inputs, scores: Floats) -> Golden:
    """The newest rows and the module's scores for them: as many as fit into GOLDEN_BYTES, at least one."""
    from tailrace.inference.releases.manifest import Golden

    rows = GOLDEN_ROWS
    while True:
        made = Golden.of(inputs.take(slice(-rows, None)), scores[-rows:])
        if rows == 1 or len(msgspec.json.encode(made)) <= GOLDEN_BYTES:
            return made
        rows //= 2
