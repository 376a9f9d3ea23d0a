"""Records of the examples topic become rows to learn from (pure, but for the functions that the user declared).

Examples outlive a change of the declaration. So each is taken through today's once, here, where one that does not fit
costs only itself, and not in a run, which it would fail. The values of user functions are computed anew: nothing tells
whether those in the record come from the functions that serve today.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tailrace.declaration.task import Task
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.retrain.selection.buffer import Row
from tailrace.streams.log.codec import Codec, Malformed
from tailrace.streams.log.records import Example, Record


class Taken(NamedTuple):
    """What came of a batch: the rows, what a model sees of them, and what cannot be used."""

    rows: list[Row]
    inputs: Inputs
    malformed: list[Malformed]


class Intake:
    """Knows what an example must fit: the declared event, its features and the task."""

    def __init__(self, features: Features, task: Task) -> None:
        self._features, self._task = features, task
        self._examples = Codec(Example)
        self._events = msgspec.json.Decoder(list[features.event])  # type: ignore[name-defined]

    def rows(self, records: Sequence[Record]) -> Taken:
        """The rows in the order of their records, and what cannot be used."""
        examples, kept, malformed = self._examples.decode(records)
        try:
            return Taken(*self._rows(examples, kept), malformed)
        except Exception:  # user functions may raise anything
            return self._each(examples, kept, malformed)

    def _each(self, examples: Sequence[Example], records: Sequence[Record], malformed: list[Malformed]) -> Taken:
        rows: list[Row] = []
        inputs = [self._features.encode([], [])]
        for example, record in zip(examples, records, strict=True):
            try:
                row, encoded = self._rows([example], [record])
            except Exception as error:
                malformed.append(Malformed(record, "unfit", f"{type(error).__name__}: {error}"))
            else:
                rows += row
                inputs.append(encoded)
        return Taken(rows, Inputs.concat(inputs), malformed)

    def _rows(self, examples: Sequence[Example], records: Sequence[Record]) -> tuple[list[Row], Inputs]:
        """Raises whatever one of them does not fit with."""
        raw = [bytes(example.features) for example in examples]  # JSON values that were parsed before: joined, an array
        events = self._events.decode(b"[" + b",".join(raw) + b"]")
        derived = self._features.derive(events)
        inputs = self._features.encode(events, derived)  # as a run will do with those that it selects
        values: Sequence[list[float | None] | None] = derived or [None] * len(events)
        return list(map(self._row, examples, records, raw, values)), inputs

    def _row(self, example: Example, record: Record, features: bytes, derived: list[float | None] | None) -> Row:
        return Row(
            record.partition,
            record.offset,
            example.time,
            example.label_time,
            self._task.target(example.label),
            features,
            derived,
            example.release,
            example.scores,
            example.implicit,
        )
