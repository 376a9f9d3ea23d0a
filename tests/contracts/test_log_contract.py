"""Promises of tailrace.streams.log.base, tested on every driver.

A commit is durable when `flush` returns. On Kafka others see it moments later, when the broker has written the markers
of the transaction: so what must appear is awaited, and what must not is not.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing

import pytest
from support.log_place import Copier, Place, RecordingListener, after, child, drain, numbered, until

from tailrace.streams.log.base import (
    Aborted,
    Committed,
    Delivery,
    Fenced,
    Positions,
    Reader,
    Sharing,
    TooLarge,
    Topic,
    TopicMissing,
    TopicPartition,
    Writer,
)
from tailrace.streams.log.record_count import RecordCount
from tailrace.streams.log.records import Out, Record

# ---- topics


def test_create_is_idempotent(place: Place) -> None:
    """A topic that exists stays unchanged, with its records."""
    topic = place.topic(partitions=3)
    place.put(topic, [b"a"])
    place.log.create([Topic(topic, 7)])
    assert place.log.partitions(topic) == 3
    assert place.log.topics()[topic] == 3
    assert place.values(topic) == Counter([b"a"])


def test_missing_topic_is_named(place: Place) -> None:
    """Questions about a topic that does not exist raise TopicMissing; the number of its partitions is 0."""
    topic = f"{place.prefix}.nowhere"
    assert place.log.partitions(topic) == 0
    with pytest.raises(TopicMissing, match="nowhere"):
        place.log.end_positions(topic)
    with pytest.raises(TopicMissing, match="nowhere"):
        place.kept(place.log.reader([topic])).read(1, 1)
    with pytest.raises(TopicMissing):
        place.kept(place.log.writer()).write([Out(topic, b"k", b"v")])


# ---- records


def test_any_bytes_come_back(place: Place) -> None:
    """Binary keys, values and headers, nulls and empty values come back unchanged, with their timestamps."""
    topic, everything = place.topic(), bytes(range(256))
    headers = (("a", everything), ("a", b""), ("b", None))
    outs = [
        Out(topic, everything, everything, headers, timestamp=1_700_000_000_000),
        Out(topic, b"tombstone", None),
        Out(topic, None, b""),
        Out(topic, b"", b"x"),
    ]
    writer = place.kept(place.log.writer())
    writer.write(outs)
    writer.commit()
    writer.flush()
    records = drain(place.kept(place.log.reader([topic])), 4)
    assert [(r.key, r.value, r.headers) for r in records] == [(o.key, o.value, o.headers) for o in outs]
    assert records[0].timestamp == 1_700_000_000_000
    assert abs(records[1].timestamp / 1000 - time.time()) < 60


def test_order_within_each_partition(place: Place) -> None:
    """Records of one partition come back in the order of writing; equal keys meet in one partition."""
    topic = place.topic(partitions=3)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    for start in range(0, 900, 300):
        writer.write([Out(topic, b"%d" % (n % 20), b"%06d" % n) for n in range(start, start + 300)])
        writer.commit()
    writer.flush()
    records = drain(place.kept(place.log.reader([topic])), 900, size=70)
    for partition in range(3):
        mine = [r for r in records if r.partition == partition]
        assert mine == sorted(mine, key=lambda r: r.offset) == sorted(mine, key=lambda r: r.value or b"")
    assert len({(r.key, r.partition) for r in records}) == 20


def test_partition_of_choice(place: Place) -> None:
    """A record goes to the partition that it names."""
    topic = place.topic(partitions=4)
    place.put(topic, numbered(5), partition=2)
    assert {at.partition: end for at, end in place.log.end_positions(topic).items()} == {0: 0, 1: 0, 2: 5, 3: 0}


def test_the_partition_of_a_key_is_known(place: Place) -> None:
    """A record without a partition is stored in the one that `partition_of` returns."""
    topic = place.topic(partitions=3)
    place.put(topic, numbered(20))
    found = [record for record in drain(place.kept(place.log.reader([topic])), 20) if record.key is not None]
    assert len({record.partition for record in found}) == 3
    assert all(place.log.partition_of(topic, record.key or b"") == (topic, record.partition) for record in found)
    with pytest.raises(TopicMissing, match="nowhere"):
        place.log.partition_of(f"{place.prefix}.nowhere", b"k")


def test_large_records(place: Place) -> None:
    """Records up to the limit pass; beyond it TooLarge is raised, nothing is written, and the writer stays usable."""
    topic = place.topic(max_record_bytes=1_048_576)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    writer.write([Out(topic, b"large", bytes(1_040_000))])
    writer.commit()
    writer.flush()
    with pytest.raises(TooLarge):
        _write_and_commit(writer, [Out(topic, b"k", b"small"), Out(topic, b"k", bytes(1_060_000))])
    writer.abort()
    _write_and_commit(writer, [Out(topic, b"k", b"next")])
    until(lambda: place.values(topic) == Counter([bytes(1_040_000), b"next"]))


# ---- positions


def test_the_limit_of_a_record_is_known(place: Place) -> None:
    """`record_limit` gives a size that a record may have, and far more is refused; it raises TopicMissing."""
    topic = place.topic(max_record_bytes=300_000)
    limit = place.log.record_limit(topic)
    assert limit == 300_000
    place.put(topic, [b"x" * (limit // 2)])  # its key is the same
    with pytest.raises(TooLarge):
        place.put(topic, [b"x" * (limit // 2 + 10_000)])
    with pytest.raises(TopicMissing):
        place.log.record_limit("nowhere")


def test_begin_and_end(place: Place) -> None:
    """The positions of the oldest record kept and behind the newest one."""
    topic, now = place.topic(), time.time()
    writer = place.kept(place.log.writer())
    writer.write([Out(topic, b"k", b"v", timestamp=round((now - 100 + n) * 1000)) for n in range(10)])
    writer.commit()
    writer.flush()
    at = TopicPartition(topic, 0)
    assert place.log.begin_positions(topic) == {at: 0}
    assert place.log.end_positions(topic) == {at: 10}


def test_read_from_a_position(place: Place) -> None:
    """A reader without a group starts at `start`, else at the beginning, and never commits."""
    topic = place.topic(partitions=2)
    place.put(topic, numbered(10), partition=0)
    place.put(topic, numbered(3), partition=1)
    reader = place.kept(place.log.reader([topic], start={TopicPartition(topic, 0): 6}))
    records = drain(reader, 7)
    assert [r.offset for r in records if r.partition == 0] == [6, 7, 8, 9]
    assert [r.offset for r in records if r.partition == 1] == [0, 1, 2]


def test_scan_reads_a_range(place: Place) -> None:
    """A scan yields the records with start <= offset < end and stops."""
    topic = place.topic()
    place.put(topic, numbered(1000))
    at = TopicPartition(topic, 0)
    assert list(range(3, 997)) == [r.offset for batch in place.log.scan(at, 3, 997) for r in batch]
    assert list(place.log.scan(at, 5, 5)) == []


def test_seek_and_rewind(place: Place) -> None:
    """A seek moves partitions that the reader holds; rewind returns to the committed positions, and returns them."""
    topic = place.topic()
    place.put(topic, numbered(10))
    at = TopicPartition(topic, 0)
    reader = place.kept(place.log.reader([topic], group=place.group()))
    first = drain(reader, 10)
    assert reader.rewind() == {at: None}
    assert drain(reader, 10) == first
    writer = place.kept(place.log.writer())
    writer.commit({at: Committed(4, "four")}, reader)
    writer.flush()
    assert reader.rewind() == {at: Committed(4, "four")}
    assert drain(reader, 6) == first[4:]
    reader.seek({at: 8, TopicPartition("another", 0): 1})
    assert drain(reader, 2) == first[8:]


def test_at_end(place: Place) -> None:
    """A batch names the end of a partition only after all its records were read, and names it eventually."""
    topic = place.topic()
    place.put(topic, numbered(10))
    at = TopicPartition(topic, 0)
    reader = place.kept(place.log.reader([topic]))
    taken = 0
    for total in (10, 13):
        ended = False
        while not ended:
            batch = reader.read(3, 5)
            taken += len(batch.records)
            ended = at in batch.at_end
            assert not ended or taken == total
        if total == 10:
            place.put(topic, numbered(3))


def test_the_end_lies_behind_control_records(place: Place) -> None:
    """The position at a partition's end equals the end position, also where transactions were committed and aborted."""
    topic = place.topic()
    at = TopicPartition(topic, 0)
    reader = place.kept(place.log.reader([topic]))
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    for number in range(3):
        _write_and_commit(writer, [Out(topic, b"k", b"%d" % number)])
    ends: dict[TopicPartition, int] = {}
    until(lambda: ends == place.log.end_positions(topic), lambda: ends.update(reader.read(10, 0.1).at_end))
    assert ends[at] >= 3


def test_control_records_are_not_counted(place: Place) -> None:
    """A RecordCount tells the number of records, however many transactions wrote them, and the number since offsets."""
    topic = place.topic(partitions=2)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    for number in range(10):
        _write_and_commit(writer, [Out(topic, b"k", b"%d" % number, partition=n) for n in (0, 1)])
    count = place.kept(RecordCount(place.log, [topic]))
    until(lambda: count.look() == {topic: 20})
    before = {at.partition: end for at, end in place.log.end_positions(topic).items()}
    _write_and_commit(writer, [Out(topic, b"k", b"v", partition=0)] * 6)
    until(lambda: count.look() == {topic: 26})
    assert 3 <= count.between(topic, before) <= 7
    assert 20 <= count.between(topic, {}) <= 30


def test_a_count_of_many_records_is_an_estimate(place: Place) -> None:
    """Records that come faster than a RecordCount reads them are estimated from the newest ones."""
    topic = place.topic()
    count = place.kept(RecordCount(place.log, [topic]))
    assert count.look() == {topic: 0}
    for start in (0, 5_000):
        place.put(topic, numbered(5_000, start))
        until(lambda: start + 4_900 <= count.look()[topic] <= start + 5_100)  # noqa: B023


def test_a_silent_end_is_told_anew(place: Place) -> None:
    """Read TOGETHER, a partition that has ended is named again after others have moved on."""
    topics = [place.topic("moving"), place.topic("silent")]
    silent = TopicPartition(topics[1], 0)
    reader = place.kept(place.log.reader(topics, group=place.group(), instance="a", sharing=Sharing.TOGETHER))
    for number in range(3):
        place.put(topics[0], [b"%d" % number])
        drain(reader, 1)
        until(lambda: silent in reader.read(1, 0.1).at_end)


def test_at_most_max_records_and_all_partitions(place: Place) -> None:
    """A read returns at most as many records as asked for, and no partition starves while others are full."""
    topic = place.topic(partitions=4)
    for partition in range(4):
        place.put(topic, numbered(50), partition)
    reader = place.kept(place.log.reader([topic]))
    seen: Counter[int] = Counter()
    while sum(seen.values()) < 200:
        records, at_end = reader.read(7, 5)[:2]
        assert len(records) <= 7
        assert records or at_end
        seen.update(r.partition for r in records)
    assert seen == {0: 50, 1: 50, 2: 50, 3: 50}


def test_empty_batch_after_the_timeout(place: Place) -> None:
    """Without records a read returns an empty batch after its time-out."""
    reader = place.kept(place.log.reader([place.topic()]))
    started = time.monotonic()
    assert reader.read(10, 0.2).records == []
    assert time.monotonic() - started < 10


# ---- transactions


def test_records_and_positions_appear_together(place: Place) -> None:
    """Other readers see neither the records nor the positions before a commit, and both after it."""
    source, sink = place.topic("source"), place.topic("sink")
    place.put(source, numbered(5))
    reader = place.kept(place.log.reader([source], group=place.group()))
    records = drain(reader, 5)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    writer.write([Out(sink, r.key, r.value) for r in records])
    other = place.kept(place.log.reader([sink]))
    assert other.read(10, 0.2).records == []
    assert place.log.committed(place.group(), [source]) == {}
    writer.commit(after(records, "état"), reader)
    writer.flush()
    assert [r.value for r in drain(other, 5)] == numbered(5)
    until(lambda: place.log.committed(place.group(), [source]) == {TopicPartition(source, 0): Committed(5, "état")})


def test_abort_leaves_nothing_behind(place: Place) -> None:
    """No reader sees aborted records, and the writer stays usable."""
    topic = place.topic()
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    writer.write([Out(topic, b"k", b"aborted")])
    writer.abort()
    writer.abort()
    _write_and_commit(writer, [Out(topic, b"k", b"kept")])
    assert [r.value for r in drain(place.kept(place.log.reader([topic])), 1)] == [b"kept"]
    until(lambda: place.values(topic) == Counter([b"kept"]))


def test_closing_aborts(place: Place) -> None:
    """Closing a writer aborts its open transaction."""
    topic = place.topic()
    writer = place.log.writer(place.prefix, Delivery.EXACTLY_ONCE)
    writer.write([Out(topic, b"k", b"v")])
    writer.close()
    assert place.values(topic) == Counter()


def test_commits_of_little(place: Place) -> None:
    """Commits without content, of positions alone and of records alone all work."""
    source, sink = place.topic("source"), place.topic("sink")
    place.put(source, numbered(3))
    reader = place.kept(place.log.reader([source], group=place.group()))
    records = drain(reader, 3)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    writer.commit()
    writer.commit(after(records), reader)
    _write_and_commit(writer, [Out(sink, b"k", b"v")])
    until(lambda: place.log.committed(place.group(), [source]) == {TopicPartition(source, 0): Committed(3)})
    until(lambda: place.values(sink) == Counter([b"v"]))


def test_metadata_reaches_the_next_reader(place: Place) -> None:
    """The listener of the next reader gets the metadata of the last commit."""
    topic = place.topic()
    place.put(topic, numbered(5))
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    with closing(place.log.reader([topic], group=place.group())) as first:
        records = drain(first, 5)
        writer.commit(after(records[:2], "x" * 2_000), first)
        writer.flush()
    listener = RecordingListener()
    second = place.kept(place.log.reader([topic], group=place.group(), listener=listener))
    assert [r.offset for r in drain(second, 3)] == [2, 3, 4]
    assert listener.committed == {TopicPartition(topic, 0): Committed(2, "x" * 2_000)}


def test_at_least_once(place: Place) -> None:
    """At least once, records are there after a flush, and positions after a commit."""
    source, sink = place.topic("source"), place.topic("sink")
    place.put(source, numbered(5))
    reader = place.kept(place.log.reader([source], group=place.group()))
    records = drain(reader, 5)
    writer = place.kept(place.log.writer())
    writer.write([Out(sink, r.key, r.value) for r in records])
    writer.flush()
    assert place.values(sink) == Counter(numbered(5))
    assert place.log.committed(place.group(), [source]) == {}
    writer.commit(after(records), reader)
    writer.flush()
    assert place.log.committed(place.group(), [source]) == {TopicPartition(source, 0): Committed(5)}


def test_newer_writer_fences_the_older(place: Place) -> None:
    """Opening a writer of the same name voids the older one's transaction; the older one raises Fenced."""
    topic = place.topic()
    old = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    old.write([Out(topic, b"k", b"old")])
    new = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    with pytest.raises(Fenced):
        _write_and_commit(old, [Out(topic, b"k", b"older")])
    _write_and_commit(new, [Out(topic, b"k", b"new")])
    until(lambda: place.values(topic) == Counter([b"new"]))


# ---- groups


def test_two_readers_share(place: Place) -> None:
    """Two readers of a group divide the partitions; a former holder cannot commit; closing hands over at once."""
    topic = place.topic(partitions=4)
    place.put(topic, numbered(40))
    listener = RecordingListener()
    one = place.kept(place.log.reader([topic], group=place.group(), listener=listener))
    records = drain(one, 40)
    with closing(place.log.reader([topic], group=place.group())) as two:
        until(
            lambda: len(one.assignment) == len(two.assignment) == 2,
            lambda: one.read(10, 0.02),
            lambda: two.read(10, 0.02),
        )
        assert not one.assignment & two.assignment
        assert listener.heard("revoking")
        writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
        with pytest.raises(Aborted):
            _write_and_commit(writer, [Out(topic, b"k", b"never")], after(records), one)
        writer.abort()
        assert place.log.committed(place.group(), [topic]) == {}
        mine = {at: position for at, position in after(records).items() if at in one.assignment}
        writer.commit(mine, one)
        writer.flush()
        until(lambda: place.log.committed(place.group(), [topic]) == mine)
    until(lambda: len(one.assignment) == 4, lambda: one.read(10, 0.02))
    assert b"never" not in place.values(topic)


def test_together(place: Place) -> None:
    """TOGETHER gives the same partition numbers of both topics to the same reader."""
    topics = [place.topic("left", 4), place.topic("right", 4)]
    readers = [place.kept(place.log.reader(topics, group=place.group(), sharing=Sharing.TOGETHER)) for _ in range(2)]
    until(
        lambda: all(len(reader.assignment) == 4 for reader in readers), *[lambda r=r: r.read(1, 0.02) for r in readers]
    )
    for reader in readers:
        numbers = [{at.partition for at in reader.assignment if at.topic == topic} for topic in topics]
        assert numbers[0] == numbers[1]
        assert len(numbers[0]) == 2


def test_rebalance_under_flow(place: Place) -> None:
    """Readers that join and leave while records arrive lose and duplicate nothing."""
    source, sink = place.topic("source", 4), place.topic("sink", 4)
    fed = iter(numbered(100_000))
    sent: list[bytes] = []
    producer = place.kept(place.log.writer())

    def feed() -> None:
        values = [next(fed) for _ in range(25)]
        producer.write([Out(source, value, value) for value in values])
        producer.flush()
        sent.extend(values)

    one = place.kept(Copier(place.log, source, sink, place.group(), f"{place.prefix}-1", size=50))
    until(lambda: len(one.reader.assignment) == 4, feed, one.step)
    with closing(Copier(place.log, source, sink, place.group(), f"{place.prefix}-2", size=50)) as two:
        until(lambda: len(two.reader.assignment) == 2, feed, one.step, two.step)
        feed()
        two.step()
    until(lambda: len(one.reader.assignment) == 4, feed, one.step)
    until(lambda: sum(place.log.end_positions(sink).values()) >= len(sent), one.step)
    until(lambda: place.values(sink).total() >= len(sent), one.step)
    assert place.values(sink) == Counter(sent)


def test_kill_minus_nine(place: Place) -> None:
    """After a process was killed, another one continues without loss or duplicates."""
    source, sink = place.topic("source", 2), place.topic("sink", 2)
    count = 10_000
    place.put(source, numbered(count))
    arguments = (place.url, source, sink, place.group(), f"{place.prefix}-1")

    def copied() -> int:
        return sum(place.log.end_positions(sink).values())

    with child("copy_child.py", *arguments) as process:
        until(lambda: copied() > 100)
        process.kill()
    assert place.values(sink).total() < count
    with child("copy_child.py", *arguments):
        until(lambda: copied() >= count)
        until(lambda: place.values(sink).total() >= count)
    assert place.values(sink) == Counter(numbered(count))


def test_alone(place: Place) -> None:
    """A reader that is alone takes all partitions, from `start`, else from the committed positions."""
    topic = place.topic(partitions=2)
    place.put(topic, numbered(4), partition=0)
    place.put(topic, numbered(4), partition=1)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    with closing(place.log.reader([topic], group=place.group(), alone=True)) as first:
        assert len(first.assignment) == 2
        drain(first, 8)
        writer.commit({TopicPartition(topic, 0): Committed(3)}, first)
        writer.flush()
    with closing(place.log.reader([topic], group=place.group(), alone=True)) as second:
        assert sorted((r.partition, r.offset) for r in drain(second, 5)) == [(0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    start = {TopicPartition(topic, 1): 2}
    third = place.kept(place.log.reader([topic], group=place.group(), alone=True, start=start))
    assert sorted((r.partition, r.offset) for r in drain(third, 3)) == [(0, 3), (1, 2), (1, 3)]


# ---- what is kept


def test_newest_of_each_key_survives_compaction(place: Place) -> None:
    """From the start of a compacted topic the newest record of each key is always read, in the order of offsets."""
    topic = place.topic(compacted=True)
    writer = place.kept(place.log.writer(place.prefix, Delivery.EXACTLY_ONCE))
    for turn in range(20):
        _write_and_commit(writer, [Out(topic, b"%d" % key, b"%d/%d" % (key, turn)) for key in range(turn % 7, 20)])
    _write_and_commit(writer, [Out(topic, b"0", None)])
    reader = place.kept(place.log.reader([topic]))
    records: list[Record] = []
    until(
        lambda: (b"0", None) in [(r.key, r.value) for r in records], lambda: records.extend(reader.read(100, 1).records)
    )
    assert [r.offset for r in records] == sorted(r.offset for r in records)
    expected = {b"%d" % key: b"%d/%d" % (key, _last_turn(key)) for key in range(1, 20)}
    assert {r.key: r.value for r in records} == expected | {b"0": None}


def test_retention_keeps_the_young(place: Place) -> None:
    """Records younger than a topic's retention are kept."""
    topic = place.topic(retention_s=3600)
    place.put(topic, numbered(100))
    place.put(topic, numbered(100, start=100))
    assert place.values(topic) == Counter(numbered(200))


def _last_turn(key: int) -> int:
    return max(turn for turn in range(20) if key >= turn % 7)


def _write_and_commit(
    writer: Writer, records: list[Out], positions: Positions | None = None, reader: Reader | None = None
) -> None:
    writer.write(records)
    writer.commit(positions, reader)
    writer.flush()
