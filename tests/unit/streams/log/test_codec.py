"""Decoding: reasons of bad records, forms of event times, declarations that cannot work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tailrace.declaration.event import Event, EventTime, Key, schema_of
from tailrace.errors import DeclarationError
from tailrace.streams.log.codec import Codec, EventCodec, encode
from tailrace.streams.log.future_times import FUTURE_TOLERANCE_S
from tailrace.streams.log.records import Prediction, Record

NOW = 1_700_000_000.0
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


class Sale(Event):
    """An event declared under postponed annotations."""

    id: Key
    at: EventTime
    amount: float
    shop: str | None = None


class Click(Event):
    """An event without a time field."""

    id: Key


def record(value: bytes | None, offset: int = 0, timestamp: int = 5_000) -> Record:
    return Record("sales", 0, offset, timestamp, None, value)


def sale(time: str = "1", **fields: str) -> bytes:
    given = {"id": '"a"', "at": time, "amount": "1.5"} | fields
    return b"{%b}" % ",".join(f'"{name}":{value}' for name, value in given.items()).encode()


def reason(value: bytes | None) -> str:
    """Return the reason for which a value is refused among valid neighbours."""
    records = [record(sale(), 0), record(value, 1), record(sale(), 2)]
    batch = EventCodec(schema_of(Sale)).decode(records, NOW)
    assert [r.offset for r in batch.records] == [0, 2], "the neighbours are kept"
    (bad,) = batch.malformed
    assert bad.detail
    assert records[1] is bad.record
    return bad.reason


@pytest.mark.parametrize(
    ("word", "value"),
    [
        pytest.param("null", None, id="null"),
        pytest.param("too_large", sale(shop=f'"{"x" * 1_000_000}"'), id="a megabyte and more"),
        pytest.param("invalid_json", b"", id="empty"),
        pytest.param("invalid_json", sale()[:-1], id="cut"),
        pytest.param("invalid_json", sale() + b"]", id="junk behind"),
        pytest.param("invalid_json", sale() + sale(), id="two in one"),
        pytest.param("invalid_json", b"\xef\xbb\xbf" + sale(), id="byte order mark"),
        pytest.param("invalid_json", sale(amount="NaN"), id="NaN"),
        pytest.param("invalid_json", sale(amount="-Infinity"), id="Infinity"),
        pytest.param("invalid_json", sale(id=r'"\ud800"'), id="lone surrogate"),
        pytest.param("invalid_json", sale(shop='"two\nlines"'), id="newline in a string"),
        pytest.param("invalid_json", sale(shop="'x'"), id="single quotes"),
        pytest.param("not_utf8", sale().replace(b'"a"', b'"\xff"'), id="not UTF-8"),
        pytest.param("not_utf8", sale().replace(b'"a"', b'"\xed\xa0\x80"'), id="surrogate in UTF-8"),
        pytest.param("not_utf8", "é".encode("latin-1"), id="latin-1 without JSON"),
        pytest.param("too_deep", sale(more="[" * 100_000 + "]" * 100_000), id="nested 100,000 deep"),
        pytest.param("wrong_shape", b"[]", id="no object"),
        pytest.param("wrong_shape", b"1", id="a number"),
        pytest.param("wrong_shape", b"{}", id="nothing in it"),
        pytest.param("wrong_shape", b'{"at":1,"amount":1}', id="missing id"),
        pytest.param("wrong_shape", sale(id='""'), id="empty id"),
        pytest.param("wrong_shape", sale(id="7.0"), id="a number with a point as id"),
        pytest.param("wrong_shape", sale(id="true"), id="true as id"),
        pytest.param("wrong_shape", sale(id="null"), id="null as id"),
        pytest.param("wrong_shape", sale(id=str(2**63)), id="a whole number of more than 64 bits as id"),
        pytest.param("wrong_shape", sale(id=f'"{"x" * 1025}"'), id="id too long"),
        pytest.param("wrong_shape", sale(amount='"1.5"'), id="text for a number"),
        pytest.param("wrong_shape", sale(amount="null"), id="null for a number"),
        pytest.param("wrong_shape", sale(amount="1e999"), id="beyond a float"),
        pytest.param("wrong_shape", sale(amount="1" * 5_000), id="an integer of 5,000 digits"),
        pytest.param("wrong_shape", sale('"yesterday"'), id="no time"),
        pytest.param("wrong_shape", sale("-1e308"), id="a time before year 1"),
        pytest.param("wrong_shape", sale("1e300"), id="a time behind year 9999"),
        pytest.param("future_time", sale(f"{NOW + FUTURE_TOLERANCE_S + 1}"), id="more than a day ahead"),
        pytest.param("future_time", sale('"9999-12-31T23:59:59Z"'), id="the end of time"),
    ],
)
def test_a_bad_record_costs_one_record_and_says_why(word: str, value: bytes | None) -> None:
    """Each kind of bad record is refused with its reason; its neighbours are decoded."""
    assert word == reason(value)


def test_unusual_but_valid_records_are_taken() -> None:
    """Indented JSON, unknown fields, surrounding white space and repeated keys (the last counts) are accepted."""
    values = [b'{\n  "id": "a"\n}\n', b'\r\n {"id":"b","other":[{"x":null}]} ', b'{"id":"x","id":"c"}']
    batch = EventCodec(schema_of(Click)).decode([record(value) for value in values], NOW)
    assert (batch.ids, batch.malformed) == (["a", "b", "c"], [])


def test_an_empty_batch_decodes_to_nothing() -> None:
    """An empty batch decodes to an empty result."""
    assert tuple(Codec(Prediction).decode([])) == ([], [], [])


@pytest.mark.parametrize(
    ("expected", "written"),
    [
        (NOON, '"2024-05-01T12:00:00"'),
        (NOON, '"2024-05-01T12:00:00Z"'),
        (NOON, '"2024-05-01T14:00:00+02:00"'),
        (NOON + 0.25, '"2024-05-01 12:00:00.25Z"'),
        (NOON, f"{NOON:.0f}"),
        (NOON + 0.5, f"{NOON + 0.5}"),
        (NOON, f"{NOON * 1000:.0f}"),
        (-3600.0, "-3600"),
        (0.0, "0"),
    ],
)
def test_times_may_be_written_in_many_ways(expected: float, written: str) -> None:
    """ISO 8601 with and without an offset, seconds and milliseconds all become unix seconds."""
    batch = EventCodec(schema_of(Sale)).decode([record(sale(written))], NOON)
    assert [expected] == batch.times


def test_without_a_declared_time_the_records_timestamp_counts() -> None:
    """An event class without EventTime takes the record's milliseconds, and the future is refused there too."""
    far = int((NOW + 2 * FUTURE_TOLERANCE_S) * 1000)
    batch = EventCodec(schema_of(Click)).decode([record(b'{"id":"a"}'), record(b'{"id":"b"}', 1, far)], NOW)
    assert (batch.times, [bad.reason for bad in batch.malformed]) == ([5.0], ["future_time"])


def test_a_time_up_to_a_day_ahead_is_taken() -> None:
    """An event time exactly at the tolerance is accepted."""
    batch = EventCodec(schema_of(Sale)).decode([record(sale(f"{NOW + FUTURE_TOLERANCE_S}"))], NOW)
    assert batch.times == [NOW + FUTURE_TOLERANCE_S]


def test_what_is_encoded_can_be_decoded() -> None:
    """Encoding and decoding return an equal event, raw bytes included."""
    (event,) = EventCodec(schema_of(Sale)).decode([record(sale(shop='"Zürich"'))], NOW).events
    assert event == msgspec.json.decode(encode(event), type=Sale)


def test_markers_are_found_under_postponed_annotations() -> None:
    """Markers work under postponed annotations and are inherited by subclasses."""

    class Refund(Sale):
        reason: str = ""

    assert [([*schema.keys], schema.time) for schema in (schema_of(Sale), schema_of(Refund))] == [(["id"], "at")] * 2
    assert schema_of(Click).time is None


class Visit(Event):
    """An event with an optional time."""

    id: Key
    at: EventTime | None = None


def test_an_optional_time_that_is_missing_is_the_records() -> None:
    """The time marker works inside a union, and a missing time is accepted."""
    values = [b'{"id":"a"}', b'{"id":"b","at":7}', b'{"id":"c","at":null}']
    assert EventCodec(schema_of(Visit)).decode([record(value) for value in values], NOW).times == [5.0, 7.0, 5.0]


class TwoTimes(Event):
    id: Key
    sold: EventTime
    paid: EventTime


class Plain:
    pass


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (TwoTimes, r"TwoTimes has 2 EventTime fields \['sold', 'paid'\]: keep one"),
        (Plain, r"Plain is not a subclass of tailrace\.Event: declare `class Plain\(Event\)"),
        ("Sale", r"'Sale' is not a subclass"),
    ],
)
def test_a_declaration_that_cannot_work_says_so(declared: Any, message: str) -> None:
    """The error names the class, the fields and the fix."""
    with pytest.raises(DeclarationError, match=message):
        schema_of(declared)
