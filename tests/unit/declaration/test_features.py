"""Declared features: the number of buckets of a category."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest

from tailrace import Buckets, Category, DeclarationError, Event, Key, Number
from tailrace.declaration.features import CategoryFeature, declared_features
from tailrace.inference.models.encoding import Features


class Click(Event):
    """Categories in all forms."""

    id: Key
    plain: Category
    campaign: Annotated[Category, Buckets(4_096)]
    referrer: Annotated[Category | None, Buckets(64)] = None
    agent: Annotated[Category, Buckets(32)] | None = None
    site: Annotated[str, Buckets(16)]
    slot: Annotated[int | None, Buckets(8)] = None
    device: Annotated[Literal["phone", "desktop"], Buckets(4)]


def test_the_bucket_count_can_be_declared() -> None:
    """`Buckets` works on Category, str, int, literals and optional ones; without it there are 1,024 buckets."""
    fields, _ = declared_features(Click)
    buckets = {field.name: field.marker.buckets for field in fields if isinstance(field.marker, CategoryFeature)}
    assert buckets == {
        "plain": 1_024,
        "campaign": 4_096,
        "referrer": 64,
        "agent": 32,
        "site": 16,
        "slot": 8,
        "device": 4,
    }
    assert {field.name for field in fields if field.optional} == {"referrer", "agent", "slot"}


def test_buckets_encode_as_before() -> None:
    """A field with `Buckets(n)` has the digest that it had with the internal marker: old releases still fit."""

    class Old(Event):
        campaign: Annotated[str, CategoryFeature(4_096)]

    class New(Event):
        campaign: Annotated[str, Buckets(4_096)]

    assert Features.of(Old).digest == Features.of(New).digest
    assert Features.of(New).buckets == (4_096,)


class OnNumber(Event):
    """Buckets on a number."""

    x: Annotated[Number, Buckets(16)]


class TooFew(Event):
    """One bucket."""

    x: Annotated[Category, Buckets(1)]


class Twice(Event):
    """Two counts."""

    x: Annotated[Category, Buckets(8), Buckets(16)]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (OnNumber, "OnNumber.x: CategoryFeature is for str or int, it is float"),
        (TooFew, r"TooFew.x: 1 buckets; use 2 to \d+, such as Buckets\(1024\)"),
        (Twice, "Twice declares the features .* twice"),
    ],
)
def test_a_count_that_cannot_work_names_the_field_and_the_fix(event: type[Event], words: str) -> None:
    """Each mistake is one clear DeclarationError."""
    with pytest.raises(DeclarationError, match=words):
        declared_features(event)
