"""Decoding of the examples topic into rows to learn from (pure, except for the user's functions).

Examples outlive changes of the declaration. Each is decoded and encoded by today's declaration once, here, where an
example that does not fit costs only itself; in a run it would fail the run. The values of user functions are computed
again, because a record does not tell whether its values come from the functions that serve today.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.selection.buffer import Row
from tailrace.streams.log.codec import Codec, Malformed
from tailrace.streams.log.records import Example, Record


class ExampleBatch(NamedTuple):
    """Decoded examples: their rows, their model inputs, and the records that cannot be used."""

    rows: list[Row]
    inputs: Inputs
    malformed: list[Malformed]


class ExampleDecoder:
    """Decodes examples for one declaration: its event class, features and task."""

    def __init__(self, spec: ModelSpec) -> None:
        self._features, self._task = spec.features, spec.task
        self._examples = Codec(Example)
        self._events = msgspec.json.Decoder(list[spec.features.event])  # type: ignore[name-defined]

    def rows(self, records: Sequence[Record]) -> ExampleBatch:
        """Decode records into rows, in their order; records that cannot be used are returned with the reason."""
        examples, kept, malformed = self._examples.decode(records)
        try:
            return ExampleBatch(*self._rows(examples, kept), malformed)
        except Exception:  # user functions may raise anything
            return self._each(examples, kept, malformed)

    def _each(self, examples: Sequence[Example], records: Sequence[Record], malformed: list[Malformed]) -> ExampleBatch:
        """Decode one by one, so that an example that does not fit costs only itself."""
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
        return ExampleBatch(rows, Inputs.concat(inputs), malformed)

    def _rows(self, examples: Sequence[Example], records: Sequence[Record]) -> tuple[list[Row], Inputs]:
        """Decode all at once. Raises any error of the first example that does not fit."""
        raw = [bytes(example.features) for example in examples]  # JSON that was parsed before: joined, it is an array
        events = self._events.decode(b"[" + b",".join(raw) + b"]")
        derived = self._features.derive(events)
        inputs = self._features.encode(events, derived)  # as a run encodes the rows that it selects
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
