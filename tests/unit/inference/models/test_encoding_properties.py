"""Laws of the encoding."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.declaration.event import Event, EventTime, Key
from tailrace.declaration.features import Category, Cyclic, Flag, Number, Vector, feature
from tailrace.inference.models.encoding import Features, Inputs


class Any(Event):
    id: Key
    time: Annotated[EventTime, Cyclic(604_800)]
    number: Number | None
    flag: Flag | None
    category: Category | None
    vector: Annotated[list[float], Vector(2)] | None

    @feature
    def sum(self) -> float | None:
        return None if self.vector is None else sum(self.vector)


finite = st.floats(allow_nan=False, allow_infinity=False)
events = st.builds(
    Any,
    id=st.text(min_size=1, max_size=5),
    time=st.floats(0, 4e9) | st.datetimes(),
    number=st.none() | finite,
    flag=st.none() | st.booleans(),
    category=st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    vector=st.none() | st.lists(finite, min_size=2, max_size=2),
)
FEATURES = Features.of(Any)


@given(st.lists(events, max_size=8))
@settings(max_examples=150)
def test_a_batch_is_encoded_as_its_events_are(batch: list[Any]) -> None:
    """Encoding together or one by one gives the same rows, bounded and never infinite."""
    together = FEATURES.encode(batch)
    alone = Inputs.concat([FEATURES.encode([]), *(FEATURES.encode([event]) for event in batch)])
    np.testing.assert_array_equal(alone.numbers, together.numbers)
    np.testing.assert_array_equal(alone.categories, together.categories)
    assert not np.isinf(together.numbers).any()
    assert ((together.categories >= 0) & (together.categories < FEATURES.buckets)).all()


@given(st.lists(events, max_size=5))
@settings(max_examples=100)
def test_training_sees_what_serving_saw(batch: list[Any]) -> None:
    """An event that travelled as JSON with its derived values is encoded as it was when it was scored."""
    derived = FEATURES.derive(batch)
    travelled = msgspec.json.decode(
        msgspec.json.encode((batch, derived)), type=tuple[list[Any], list[list[float | None]]]
    )
    served, trained = FEATURES.encode(batch, derived), FEATURES.encode(*travelled)
    np.testing.assert_array_equal(served.numbers, trained.numbers)
    np.testing.assert_array_equal(served.categories, trained.categories)
