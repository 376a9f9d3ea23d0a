"""Declared features become arrays."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime
from typing import Annotated, Literal

import numpy as np
import pytest

from tailrace.declaration.event import Event, EventTime, Key
from tailrace.declaration.features import Category, CategoryFeature, Cyclic, Flag, Number, Vector, feature
from tailrace.errors import DeclarationError
from tailrace.inference.models.encoding import Features, Inputs


class Flight(Event):
    id: Key
    scheduled: Annotated[EventTime, Cyclic(86_400)]
    carrier: Category
    gate: Category | None = None
    hour: Annotated[float, Cyclic(24)]
    history: Annotated[list[float], Vector(3)] | None = None
    distance: Number
    gust: Number | None = None
    heavy: Flag = False
    remark: str = ""

    @feature
    def speed(self) -> float | None:
        return None if self.gust is None else self.distance / self.gust

    @feature
    def far(self) -> bool:
        return self.distance > 1000


def flight(**changes: object) -> Flight:
    given = {"id": "a", "scheduled": 21_600.0, "carrier": "UA", "hour": 6.0, "distance": 500.0, **changes}
    return Flight(**given)  # type: ignore[arg-type]


def column(inputs: Inputs, features: Features, name: str) -> list[float]:
    values: list[float] = inputs.numbers[:, features.numbers.index(name)].tolist()
    return values


def test_columns_stand_in_the_documented_order() -> None:
    """Numbers and flags, vectors, cyclic pairs, user functions; unmarked fields are no features."""
    features = Features.of(Flight)
    cyclic = ("scheduled.sin86400", "scheduled.cos86400", "hour.sin24", "hour.cos24")
    vector = ("history.0", "history.1", "history.2")
    assert features.numbers == ("distance", "gust", "heavy", *vector, *cyclic, "speed", "far")
    assert features.categories == ("carrier", "gate")
    assert features.buckets == (1024, 1024)
    assert [n for n, o in zip(features.numbers, features.optional, strict=True) if o] == [
        "gust",
        *vector,
        "speed",
        "far",
    ]


def test_values_are_encoded_as_declared() -> None:
    """Numbers as they are, flags as 0 and 1, cyclic values as sine and cosine, functions as what they return."""
    features = Features.of(Flight)
    inputs = features.encode([flight(gust=10.0, heavy=True, history=[1.0, 2.0, 3.0])])
    expected = [500.0, 10.0, 1.0, 1.0, 2.0, 3.0, 1.0, 0.0, 1.0, 0.0, 50.0, 0.0]
    np.testing.assert_allclose(expected, inputs.numbers[0], atol=1e-6)
    assert (inputs.numbers.dtype, inputs.categories.dtype) == (np.float32, np.int64)


def test_missing_values_are_nan_and_bucket_zero() -> None:
    """A missing number, vector or function value is NaN; a missing category is 0, and a present one is not."""
    features = Features.of(Flight)
    inputs = features.encode([flight()])
    missing = [name for name in features.numbers if math.isnan(column(inputs, features, name)[0])]
    assert missing == ["gust", "history.0", "history.1", "history.2", "speed"]
    assert inputs.categories[0, 1] == 0
    assert inputs.categories[0, 0] > 0


def test_times_in_every_form_give_the_same_angle() -> None:
    """A datetime, unix seconds and unix milliseconds of one instant are encoded alike."""
    features = Features.of(Flight)
    instant = datetime(2013, 1, 1, 7, 30, tzinfo=UTC)
    forms = [instant, instant.timestamp(), instant.timestamp() * 1000]
    sines = column(features.encode([flight(scheduled=form) for form in forms]), features, "scheduled.sin86400")
    assert sines == pytest.approx([math.sin(2 * math.pi * 7.5 / 24)] * 3, abs=1e-3)


def test_what_no_float32_can_hold_is_missing() -> None:
    """A number of 1e300, and inf and NaN from a user function, become NaN."""

    class Odd(Event):
        x: Number

        @feature
        def wild(self) -> float:
            return math.inf if self.x > 0 else math.nan

    inputs = Features.of(Odd).encode([Odd(x=1e300), Odd(x=-1.0)])
    assert np.isnan(inputs.numbers).tolist() == [[True, True], [False, True]]
    assert Features.of(Odd).derive([Odd(x=1.0)]) == [[None]]


def test_derived_values_take_the_place_of_the_functions() -> None:
    """With the values that scoring computed, the functions are not called again, and the encoding is the same."""
    features = Features.of(Flight)
    events = [flight(gust=4.0), flight()]
    derived = features.derive(events)
    assert derived == [[125.0, 0.0], [None, 0.0]]
    assert features.encode(events).numbers.tobytes() == features.encode(events, derived).numbers.tobytes()
    assert column(features.encode(events, [[1.0, 2.0], [3.0, 4.0]]), features, "speed") == [1.0, 3.0]


def test_derived_values_that_do_not_fit_are_refused() -> None:
    """Too few rows or too few values in a row are an error, not a shift of columns."""
    features = Features.of(Flight)
    with pytest.raises(ValueError, match="derived values do not fit"):
        features.encode([flight()], [[1.0]])
    with pytest.raises(ValueError, match="derived values do not fit"):
        features.encode([flight(), flight()], [[1.0, 2.0]])


@pytest.mark.parametrize("rows", [[[1.0]], [[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0]]])
def test_a_vector_of_the_wrong_length_is_refused(rows: list[list[float]]) -> None:
    """The error names the field; lengths that only add up are caught too."""
    with pytest.raises(ValueError, match="history: expected 3 numbers"):
        Features.of(Flight).encode([flight(history=row) for row in rows])


def test_numbers_and_their_texts_are_one_category() -> None:
    """7 and "7" fall into one bucket, so that a producer's change of type changes no meaning."""
    buckets = Features.of(Flight).encode([flight(carrier=7), flight(carrier="7")]).categories[:, 0]
    assert buckets[0] == buckets[1]


def test_no_events_give_empty_arrays_of_the_right_width() -> None:
    """An empty batch is encoded as arrays without rows but with all columns."""
    features = Features.of(Flight)
    inputs = features.encode([])
    assert (inputs.numbers.shape, inputs.categories.shape) == ((0, len(features.numbers)), (0, 2))


def test_inputs_can_be_taken_and_joined() -> None:
    """Rows that are taken apart and concatenated are the original rows."""
    inputs = Features.of(Flight).encode([flight(distance=float(i)) for i in range(5)])
    joined = Inputs.concat([inputs.take(slice(0, 2)), inputs.take([2, 3, 4])])
    np.testing.assert_array_equal(inputs.numbers, joined.numbers)
    assert joined.rows == 5


def test_the_digest_tells_encodings_apart() -> None:
    """Equal declarations have equal digests, another bucket count another one."""

    class Few(Event):
        c: Annotated[str, CategoryFeature(16)]

    class AlsoFew(Event):
        c: Annotated[str, CategoryFeature(16)]

    class Many(Event):
        c: Annotated[str, CategoryFeature(32)]

    assert Features.of(Few).digest == Features.of(AlsoFew).digest
    assert Features.of(Few).digest != Features.of(Many).digest


def test_literals_and_constrained_types_are_features() -> None:
    """A Literal counts as the type of its values."""

    class Choice(Event):
        side: Annotated[Literal["bid", "ask"], CategoryFeature(8)]

    assert Features.of(Choice).categories == ("side",)


class NoFeature(Event):
    id: Key


class NumberOnText(Event):
    x: Annotated[str, Number.__metadata__[0]]


class VectorOnFloat(Event):
    x: Annotated[float, Vector(2)]


class EmptyVector(Event):
    x: Annotated[list[float], Vector(0)]


class ZeroPeriod(Event):
    x: Annotated[float, Cyclic(0)]


class OneBucket(Event):
    x: Annotated[str, CategoryFeature(1)]


class Twice(Event):
    x: Annotated[float, Cyclic(24), Cyclic(24)]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (NoFeature, "NoFeature has no feature: declare"),
        (NumberOnText, "NumberOnText.x: NumberFeature is for float or int, it is str"),
        (VectorOnFloat, r"VectorOnFloat.x: Vector is for list\[float\], it is float"),
        (EmptyVector, "EmptyVector.x: .* such as Vector"),
        (ZeroPeriod, "ZeroPeriod.x: .* such as Cyclic"),
        (OneBucket, "OneBucket.x: 1 buckets"),
        (Twice, "Twice declares the features .* twice"),
    ],
)
def test_a_declaration_that_cannot_work_names_the_field_and_the_fix(event: type[Event], words: str) -> None:
    """Each mistake is one clear DeclarationError."""
    with pytest.raises(DeclarationError, match=words):
        Features.of(event)


def test_importing_the_declaration_loads_no_torch() -> None:
    """Only building a model imports torch, so that `tailrace --help` answers at once."""
    packages = "releases.manifest, releases.registry, releases.weights, serving.live_model, serving.scoring"
    names = ", ".join(f"tailrace.inference.{name}" for name in f"models.spec, models.losses, {packages}".split(", "))
    program = f"import sys, {names}; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert out.strip() == "False"
