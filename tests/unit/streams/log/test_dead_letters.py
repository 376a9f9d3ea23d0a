"""Dead letters keep their original record, which can be written again."""

from __future__ import annotations

from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import DETAIL, REASON, SOURCE, dead_letter, dead_letter_topic, header, revived
from tailrace.streams.log.records import Headers, Out, Record

HEADERS: Headers = (("trace", b"\xff\x00"), ("trace", b"twice"), ("empty", None))


def letter(detail: str = "why", headers: Headers = HEADERS, value: bytes | None = b"{\xff") -> Record:
    """A dead letter that was read back."""
    bad = Malformed(Record("sales", 3, 42, 1_234, b"\x00key", value, headers), "not_utf8", detail)
    out = dead_letter(bad)
    return Record(out.topic, 0, 7, out.timestamp or 0, out.key, out.value, out.headers)


def test_the_original_is_untouched() -> None:
    """Key, value, timestamp and headers are those of the bad record, byte for byte."""
    found = letter()
    assert (found.topic, found.key, found.value, found.timestamp) == ("sales.dlq", b"\x00key", b"{\xff", 1_234)
    assert found.headers[: len(HEADERS)] == HEADERS


def test_it_says_why_and_where_from() -> None:
    """The reason, the detail and the source position are headers, readable as text."""
    found = letter(detail="byte 1 — not UTF-8")
    assert [header(found, n) for n in (REASON, DETAIL, SOURCE)] == ["not_utf8", "byte 1 — not UTF-8", "sales/3/42"]


def test_a_missing_header_is_empty_text_and_a_broken_one_does_no_harm() -> None:
    """Headers that are not valid UTF-8 raise no exception."""
    found = letter()
    assert [header(found, n) for n in ("no such header", "empty", "trace")] == ["", "", "\ufffd\x00"]


def test_details_are_cut() -> None:
    """A long detail is cut, so that a dead letter is not much larger than its record."""
    assert len(header(letter(detail="x" * 10_000), DETAIL)) == 500


def test_a_tombstone_stays_one() -> None:
    """A null value is kept as null."""
    assert letter(value=None).value is None


def test_revived_it_is_the_original_record() -> None:
    """A revived record has none of the added headers."""
    assert Out("sales", b"\x00key", b"{\xff", HEADERS, 1_234) == revived(letter(), "sales")


def test_dying_twice_leaves_one_set_of_headers() -> None:
    """A revived record that fails again becomes an equal dead letter."""
    again = revived(letter(), "sales")
    record = Record("sales", 3, 42, again.timestamp or 0, again.key, again.value, again.headers)
    assert letter().headers == dead_letter(Malformed(record, "not_utf8", "why")).headers


def test_the_topic_is_named_after_its_source() -> None:
    """The dead-letter topic is `<topic>.dlq`, as documented."""
    assert dead_letter_topic("flights.events") == "flights.events.dlq"
