"""What a training process makes of rows: arrays to learn from, and the golden batch that goes with the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from inference.columns import Floats
    from inference.features import Features, Inputs
    from inference.model import ModelFactory
    from inference.release import Golden
    from inference.task import Task
    from streams.events import EventSchema

GOLDEN_ROWS = 16
GOLDEN_BYTES = 200_000  # of the golden batch in the manifest, which has a limit: wide rows are fewer


class Declared(Protocol):
    """What training needs of a pipeline."""

    @property
    def schema(self) -> EventSchema: ...
    @property
    def features(self) -> Features: ...
    @property
    def task(self) -> Task: ...
    @property
    def model(self) -> ModelFactory | None: ...


class Encodable(Protocol):
    """Rows as they travel: JSON of the event, derived values."""

    @property
    def features(self) -> list[bytes]: ...
    @property
    def derived(self) -> Sequence[list[float | None] | None]: ...


def encoded(declared: Declared, rows: Encodable) -> Inputs:
    """The rows as arrays. Each is a JSON value that was parsed before, so together they are a JSON array."""
    events = msgspec.json.decode(b"[" + b",".join(rows.features) + b"]", type=list[declared.schema.event])  # type: ignore[name-defined]
    derived = None if any(row is None for row in rows.derived) else rows.derived
    return declared.features.encode(events, derived)  # type: ignore[arg-type]


def golden(inputs: Inputs, scores: Floats) -> Golden:
    """The newest rows and the module's scores for them: as many as fit into GOLDEN_BYTES, at least one."""
    from inference.release import Golden

    rows = GOLDEN_ROWS
    while True:
        made = Golden.of(inputs.take(slice(-rows, None)), scores[-rows:])
        if rows == 1 or len(msgspec.json.encode(made)) <= GOLDEN_BYTES:
            return made
        rows //= 2
