"""Decoding a batch equals decoding its records one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tailrace.streams.join.label_codec import label_codec
from tailrace.streams.join.state import Head
from tailrace.streams.log.codec import Codec, Decoded
from tailrace.streams.log.records import Example, Record

LABEL = label_codec({}).kind


class Order(msgspec.Struct):
    """A type with a field of any shape and a field of raw bytes."""

    id: str
    k: object = None
    raw: msgspec.Raw = msgspec.Raw()
    n: float = 0.0


VALID = (
    b'{"id":"1"}',
    b'{"id":"2","k":{"a":[{},{}]}}',
    b'{"id":"3","n":1.5,"raw":{"x":"}{"}}',
    b'{"id":"4","time":1.5,"label":true}',
    b'{\n  "id": "5",\n  "k": [\n{}\n]\n}',
    b' {"id":"6"}\r\n',
    b'{"id":"7","k":"\\ud83d\\ude00\\n"}',
    b'{"id":"8","id":"9"}',
)
ADVERSARIAL = (  # halves that would be whole when joined, and wholes that count as two
    b'{"id":"1"},{"id":"2","k":[{}',
    b"{}]}",
    b'{"id":"2","k":[1',
    b",2]}",
    b'{"id":"2","k":"}',
    b'{"}',
    b'{"id":"2","k":"\\',
    b'{"id":"2","raw":"\\ud800"}',
    b'{"id":"1"}{"id":"2"}',
    b'{"id":"1"}\n{"id":"2"}',
    b'{"id":"1"}\n',
    b"\n",
    b"",
    b"{",
    b"}",
    b'{"id":"2","k":{',
    b"{}",
    b'"',
)
BAD = (
    None,
    b"null",
    b"[]",
    b"{}",
    b'{"id":""}',
    b'{"id":1}',
    b'{"id":"1","n":NaN}',
    b'{"id":"1","n":Infinity}',
    b'{"id":"1","n":1e999}',
    b'{"id":"1","k":1e999}',
    b'{"id":"1","n":"x"}',
    b'{"id":"\\ud800"}',
    b'{"id":"\xff"}',
    b'{"id":"1","raw":"\xff"}',
    b'\xef\xbb\xbf{"id":"1"}',
    b'{"id":"1"} junk',
    b'{"id":"1","k":"a\nb"}',
    b'{"id":"1","k":%b1%b}' % (b"[" * 100_000, b"]" * 100_000),
    b'{"id":"%b"}' % (b"x" * 3_000),
)
HOPELESS = (*BAD[:4], *BAD[5:9], BAD[10], BAD[11], b'{"id":"2","k":[1', b",2]}", b'{"id":"1"}\n{"id":"2"}')
KINDS = (Order, Head, LABEL, Example)

jsons = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
orders = st.fixed_dictionaries({"id": st.text(max_size=5)}, optional={"k": jsons, "n": st.floats()}).map(
    lambda order: json.dumps(order).encode()
)
pieces = st.tuples(orders, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]])
values = st.one_of(
    st.sampled_from(VALID), orders, st.sampled_from(ADVERSARIAL), pieces, st.sampled_from(BAD), st.binary(max_size=20)
)
kinds = st.sampled_from(KINDS)


def records_of(values: Sequence[bytes | None]) -> list[Record]:
    return [Record("t", 0, offset, 0, None, value) for offset, value in enumerate(values)]


def one_by_one(codec: Codec[Any], records: Sequence[Record]) -> list[Decoded[Any]]:
    return [codec.decode([record]) for record in records]


def assert_same(kind: type, values: Sequence[bytes | None]) -> None:
    codec: Codec[Any] = Codec(kind, max_bytes=300_000)
    records = records_of(values)
    whole, singly = codec.decode(records), one_by_one(codec, records)
    assert [item for one in singly for item in one.items] == whole.items
    assert [record for one in singly for record in one.records] == list(whole.records)
    assert [bad for one in singly for bad in one.malformed] == whole.malformed
    assert all(len(one.items) + len(one.malformed) == 1 for one in singly), "each record is one item or one bad one"


@settings(max_examples=300)
@given(kinds, st.lists(values, max_size=8))
@example(Order, [b'{"id":"1"},{"id":"2","k":[{}', b"{}]}"])
@example(Order, [b'{"id":"1"}\n{"id":"2","k":[1', b",2]}"])
@example(Order, [b'{"id":"1","k":"}', b'{"}', b'{"id":"2"} {"id":"3"}'])
@example(Order, [b'{"id":"1"}{"id":"2"}', b'{"id":"3","k":{}', b'{"a":1}}'])
def test_a_batch_decodes_as_its_records_do(kind: type, values: list[bytes | None]) -> None:
    """Items, records and reasons equal those of decoding one by one, in order."""
    assert_same(kind, values)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(VALID[:4]) | orders, min_size=1, max_size=4), st.data())
def test_a_text_cut_anywhere_decodes_as_its_pieces_do(values: list[bytes], data: st.DataObject) -> None:
    """Pieces of valid JSON lines, cut anywhere, are never joined to valid records."""
    joined = b"\n".join(values)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(joined)), max_size=4)))
    ends = [*cuts, len(joined)]
    assert_same(Order, [joined[start:end] for start, end in zip([0, *cuts], ends, strict=True)])


@settings(max_examples=100)
@given(st.lists(st.sampled_from(VALID), max_size=5), st.sampled_from(HOPELESS), st.integers(0, 5))
def test_one_bad_record_costs_one_record(good: list[bytes], bad: bytes | None, at: int) -> None:
    """Valid neighbours of a bad record are kept, in order."""
    decoded = Codec(Order).decode(records_of([*good[:at], bad, *good[at:]]))
    assert good == [record.value for record in decoded.records]
    assert [bad] == [letter.record.value for letter in decoded.malformed]
