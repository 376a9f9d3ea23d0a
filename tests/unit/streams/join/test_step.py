"""The join as a step on the real embedded log: input, output and restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from tailrace.declaration.label import JoinPolicy, Winner
from tailrace.declaration.task import LabelValue
from tailrace.errors import DeclarationError
from tailrace.streams.join.label_codec import label_codec
from tailrace.streams.join.step import JoinStep
from tailrace.streams.log.base import Batch, Committed, Delivery, Reader, Sharing, Topic, TopicPartition, Writer
from tailrace.streams.log.codec import Codec, encode
from tailrace.streams.log.dead_letters import DETAIL, MAX_RECORD_BYTES, REASON, SOURCE, header
from tailrace.streams.log.records import Example, Out, Prediction, Record, Source
from tailrace.streams.log.sqlite.log import SqliteLog

PARTITIONS = 2
WAIT = 100.0
DEAD = ("labels.dlq", "predictions.dlq")
RAW = b'{"id": "x",  "amount":1.50, "note":"Z\xc3\xbcrich \\u00e9"}'  # white space and all


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """An embedded log with the topics of a join."""
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic(name, PARTITIONS) for name in ("predictions", "labels", "examples")])
    log.create([Topic(name, max_record_bytes=MAX_RECORD_BYTES) for name in DEAD])
    yield log
    log.close()


def prediction(id: str, time: float) -> bytes:
    return encode(Prediction(id, time, 7, [0.25], msgspec.Raw(RAW), Source(3, 14), [None, 2.5]))


def partition_of(id: str) -> int:
    return int(id.strip("abcdefgh") or 0) % PARTITIONS


def put(log: SqliteLog, topic: str, *records: tuple[str, bytes | None]) -> None:
    """Append (id, value) records, each in the partition of its id."""
    writer = log.writer()
    writer.write([Out(topic, id.encode(), value, (), 9_000, partition_of(id)) for id, value in records])
    writer.commit()
    writer.close()


def predict(log: SqliteLog, *events: tuple[str, float]) -> None:
    put(log, "predictions", *((id, prediction(id, time)) for id, time in events))


def label(log: SqliteLog, *labels: tuple[str, LabelValue, float]) -> None:
    put(log, "labels", *((id, json.dumps({"id": id, "label": v, "time": t}).encode()) for id, v, t in labels))


def read_all(log: SqliteLog, topic: str) -> list[Record]:
    ends = log.end_positions(topic)
    return [record for at in sorted(ends) for batch in log.scan(at, 0, ends[at]) for record in batch]


def examples(log: SqliteLog) -> list[Example]:
    return Codec(Example).decode(read_all(log, "examples")).items


def known(value: LabelValue) -> float:
    """Convert a label as a binary task does."""
    if str(value).lower() not in ("0", "1", "true", "false"):
        raise ValueError(f"label {value!r} is neither true nor false")
    return float(str(value).lower() in ("1", "true"))


class Joining:
    """A join on the log, one turn at a time."""

    def __init__(self, log: SqliteLog, policy: JoinPolicy | None = None, **options: object) -> None:
        topics = {"predictions": "predictions", "labels": "labels", "examples": "examples"}
        self.step = JoinStep(log, policy or JoinPolicy(WAIT), **topics, **options)  # type: ignore[arg-type]
        self.writer: Writer = log.writer("joiner", Delivery.EXACTLY_ONCE)
        self.reader: Reader = log.reader(
            ["predictions", "labels"], group="joiner", instance="a", sharing=Sharing.TOGETHER, listener=self
        )

    def assigned(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        self.step.restore(committed)

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        self.step.forget(partitions)

    lost = revoking

    def take(self, size: int = 1_000) -> Batch:
        """Read and step once, without a commit."""
        batch = self.reader.read(size, 0.0)
        self.writer.write(self.step(batch))
        return batch

    def commit(self) -> None:
        outs, positions = self.step.before_commit()
        self.writer.write(outs)
        self.writer.commit(positions, self.reader)
        self.writer.flush()

    def run(self, size: int = 1_000) -> None:
        """Read all records, with a commit after each batch."""
        while self.take(size).records:
            self.commit()
        self.commit()

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


def join(log: SqliteLog, policy: JoinPolicy | None = None, size: int = 1_000, **options: object) -> list[Example]:
    """Continue a join from the committed positions; return all examples so far."""
    joining = Joining(log, policy, **options)
    joining.run(size)
    joining.close()
    return examples(log)


def test_an_example_is_its_prediction_with_the_label(log: SqliteLog) -> None:
    """An example decodes to records.Example; its features are the prediction's bytes."""
    predict(log, ("a1", 10.5))
    label(log, ("a1", True, 20.0))
    (found,) = join(log)
    wanted = Example("a1", 10.5, 20.0, True, 7, [0.25], msgspec.Raw(RAW), Source(3, 14), [None, 2.5])
    assert wanted == found
    assert bytes(found.features) == RAW


def test_examples_lie_where_their_predictions_do(log: SqliteLog) -> None:
    """Examples keep key and partition number; their timestamp is the time of writing, so retention spares them."""
    predict(log, ("a1", 1.0), ("a2", 2.0))
    label(log, ("a2", 1, 30.0), ("a1", 0, 31.5))
    before = time.time()
    join(log)
    found = read_all(log, "examples")
    assert {(b"a1", 1), (b"a2", 0)} == {(r.key, r.partition) for r in found}
    assert all(r.timestamp >= int(before * 1000) for r in found)


def test_a_label_from_the_future_closes_no_window(log: SqliteLog) -> None:
    """A label with a time more than a day after its timestamp is a dead letter; catching up loses no label."""
    label(log, ("a2", 1, 4_102_358_400.0))
    predict(log, *((f"a{2 * n}", 10.0 * n) for n in range(1, 100)))
    label(log, *((f"a{2 * n}", 1, 10.0 * n + 60.0) for n in range(1, 100)))
    assert len(join(log, size=20)) == 99
    (letter,) = read_all(log, "labels.dlq")
    assert header(letter, REASON) == "future_time"


@pytest.mark.parametrize("value", [True, False, 0, 3, -2.5, "late", 'quo"te\n', 2**70, "é"])
def test_a_label_of_any_type_comes_out_as_it_came_in(log: SqliteLog, value: LabelValue) -> None:
    """Labels keep their JSON type: boolean, number or text."""
    predict(log, ("a1", 1.0))
    label(log, ("a1", value, 2.0))
    (found,) = join(log, target=lambda label: 0.0)
    assert (value, type(value)) == (found.label, type(found.label))


@pytest.mark.parametrize(
    ("time", "written"),
    [(9.0, None), (9.0, "null"), (50.0, "50"), (50.0, '"1970-01-01T00:00:50"'), (50.0, '"1970-01-01T01:00:50+01:00"')],
)
def test_a_label_may_say_when_it_was_known(log: SqliteLog, time: float, written: str | None) -> None:
    """A label's time has any form of an event time; without one the record's timestamp counts."""
    predict(log, ("a1", 1.0))
    put(log, "labels", ("a1", b'{"id":"a1","label":1%b}' % (f',"time":{written}' if written else "").encode()))
    (found,) = join(log)
    assert time == found.label_time


def test_label_fields_may_have_other_names(log: SqliteLog) -> None:
    """Renamed label fields replace the default names."""
    predict(log, ("a1", 1.0), ("a3", 1.0))
    fields = {"id": "flight", "label": "late", "time": "landed"}
    put(log, "labels", ("a1", b'{"flight":"a1","late":true,"landed":5,"id":"a3"}'), ("a3", b'{"id":"a3","label":1}'))
    (found,) = join(log, codec=label_codec(fields))
    assert (found.id, found.label, found.label_time) == ("a1", True, 5.0)
    assert [header(letter, REASON) for letter in read_all(log, "labels.dlq")] == ["wrong_shape"]


def test_a_field_that_labels_do_not_have_cannot_be_renamed() -> None:
    """An unknown label field in the declaration raises an error at once."""
    with pytest.raises(DeclarationError, match="not \\['labl'\\]"):
        label_codec({"labl": "late"})


def test_labels_that_cannot_be_used_become_dead_letters(log: SqliteLog) -> None:
    """Each kind of bad label becomes a dead letter with its reason; other labels are not affected."""
    predict(log, ("a1", 1.0))
    bad = {
        "unknown_label": b'{"id":"a1","label":"maybe"}',
        "invalid_json": b'{"id":"a1",',
        "null": None,
        "wrong_shape": b'{"id":"a1","label":1,"time":-1e308}',
        "too_large": b'{"id":"a1","label":1,"more":"%b"}' % (b"x" * 1_048_500),
    }
    put(log, "labels", *(("a1", value) for value in bad.values()))
    label(log, ("a1", 1, 5.0))
    (found,) = join(log, target=known)
    assert found.label == 1
    letters = read_all(log, "labels.dlq")
    assert list(bad.values()) == [letter.value for letter in sorted(letters, key=lambda x: header(x, SOURCE))]
    assert set(bad) == {header(letter, REASON) for letter in letters}
    assert {"labels/1/0"} == {header(x, SOURCE) for x in letters if "'maybe'" in header(x, DETAIL)}


def test_a_number_too_large_for_the_task_is_a_dead_letter(log: SqliteLog) -> None:
    """A label of 400 digits, which is too large for a float, becomes a dead letter."""
    put(log, "labels", ("a1", b'{"id":"a1","label":%b}' % (b"1" * 400)))
    join(log, target=lambda value: float(value))
    assert [header(letter, REASON) for letter in read_all(log, "labels.dlq")] == ["unknown_label"]


def test_a_prediction_that_cannot_be_used_is_a_dead_letter(log: SqliteLog) -> None:
    """A prediction that cannot be decoded becomes a dead letter."""
    put(log, "predictions", ("a1", b"?"))
    join(log)
    assert [header(letter, SOURCE) for letter in read_all(log, "predictions.dlq")] == ["predictions/1/0"]


HISTORY: Sequence[tuple[str, str, float, LabelValue]] = (
    ("p", "a1", 10, 0), ("l", "a1", 20, 1), ("p", "a2", 30, 0), ("l", "a4", 35, 1), ("p", "a3", 40, 0),
    ("l", "a1", 45, 0), ("l", "a2", 50, 1), ("p", "a4", 60, 0), ("p", "a1", 62, 0), ("l", "a2", 70, 0),
    ("p", "a6", 120, 0), ("l", "a3", 130, 1), ("l", "a3", 135, 0), ("p", "a8", 200, 0), ("l", "a8", 210, 0),
    ("p", "a5", 230, 0), ("l", "a6", 240, 1), ("l", "b1", 250, 1), ("p", "a7", 400, 0), ("p", "c2", 900, 0),
)  # fmt: skip


@pytest.mark.parametrize("wins", list(Winner))
@pytest.mark.parametrize("implicit", [None, 0])
def test_restarted_after_every_record_it_gives_the_same_examples(
    tmp_path: Path, wins: Winner, implicit: LabelValue | None
) -> None:
    """A join that restarts between any two records writes the output of one that never stopped."""
    policy = JoinPolicy(WAIT, wins, implicit)
    outputs = []
    for name in ("steady", "restarted"):
        log = SqliteLog(tmp_path / f"{name}.db")
        log.create([Topic(topic, PARTITIONS) for topic in ("predictions", "labels", "examples", *DEAD)])
        steady = Joining(log, policy)
        for kind, id, when, value in HISTORY:
            predict(log, (id, when)) if kind == "p" else label(log, (id, value, when))
            if name == "steady":
                steady.run()
            else:
                steady.close()
                steady = Joining(log, policy)
                steady.run()
        steady.close()
        outputs.append([(r.partition, r.offset, r.key, r.value) for r in read_all(log, "examples")])
        log.close()
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) >= 5


def test_what_was_not_committed_is_done_again(log: SqliteLog) -> None:
    """A join that ends between step and commit leaves nothing behind; the next one writes the examples once."""
    predict(log, ("a1", 1.0), ("a2", 2.0))
    label(log, ("a1", 1, 5.0))
    first = Joining(log)
    first.take()
    first.close()
    label(log, ("a2", 0, 6.0))
    assert examples(log) == []
    assert {"a1", "a2"} == {found.id for found in join(log)}
    assert len(join(log)) == 2


def test_a_partition_that_comes_back_is_restored(log: SqliteLog) -> None:
    """A partition that is taken away frees its state; when it comes back, the state is that of the commit."""
    predict(log, ("a1", 1.0), ("a2", 1.0))
    label(log, ("b1", 1, 3.0), ("b2", 1, 3.0))
    joining = Joining(log)
    joining.run()
    held = joining.step.held()
    pair = [TopicPartition(topic, 1) for topic in ("predictions", "labels")]
    joining.step.forget(pair)
    assert (held, joining.step.held()) == (4, 2)
    joining.step.restore({at: log.committed("joiner", [at.topic])[at] for at in pair})
    assert joining.step.held() == 4
    label(log, ("a1", 1, 5.0), ("a2", 0, 5.0))
    joining.run()
    joining.close()
    assert {("a1", 1), ("a2", 0)} == {(found.id, found.label) for found in examples(log)}


def test_a_partition_that_went_is_not_committed(log: SqliteLog) -> None:
    """The positions to commit are those of the partitions still held."""
    joining = Joining(log)
    joining.run()
    joining.step.forget([TopicPartition("predictions", 0), TopicPartition("labels", 0)])
    _, positions = joining.step.before_commit()
    joining.close()
    assert {TopicPartition("predictions", 1), TopicPartition("labels", 1)} == set(positions)


def test_catching_up_loses_no_label(log: SqliteLog) -> None:
    """Events far ahead of unread labels close no window, however small the reads."""
    predict(log, *((f"a{n}", 10.0 * n) for n in range(200)))
    label(log, *((f"a{n}", 1, 10.0 * n + 90) for n in range(200)))
    assert {f"a{n}" for n in range(200)} == {found.id for found in join(log, size=3)}


def test_labels_were_at_their_end_only_for_what_had_been_predicted(log: SqliteLog) -> None:
    """An event far ahead closes no window while labels may have come that were not read, though there were none before:
    the reader has to say so anew."""
    predict(log, ("a0", 0.0))
    joining = Joining(log)
    joining.take()
    later, none = Record("predictions", 0, 1, 0, b"a2", prediction("a2", 1_000.0)), TopicPartition("labels", 0)
    joining.step(Batch([later]))
    assert joining.step.before_commit()[0] == []
    assert joining.step.held() == 2
    joining.step(Batch([], {none: 0}))
    joining.step.before_commit()
    assert joining.step.held() == 1
    joining.close()


def test_counts_tell_what_became_of_everything(log: SqliteLog) -> None:
    """Duplicates, conflicts, late labels and orphaned labels are counted separately."""
    joining = Joining(log)
    predict(log, ("a1", 1.0), ("a1", 1.0), ("a3", 2.0))
    label(log, ("a1", 1, 5.0), ("a1", 1, 6.0), ("a1", 0, 7.0), ("a3", 1, 500.0), ("b1", 1, 9.0))
    joining.run()
    predict(log, ("a5", 1_000.0))
    joining.run()
    joining.close()
    counts = joining.step.counts
    assert (counts.matched, counts.duplicate_predictions, counts.late, counts.unmatched) == (1, 1, 1, 1)
    assert (counts.duplicate_labels, counts.conflicting_labels, counts.expired) == (1, 1, 1)


def test_what_is_held_and_how_late_labels_were_is_told(log: SqliteLog) -> None:
    """Bytes of the predictions that wait, the delays of a commit's examples, watermark and newest event, dead letters;
    a restart knows the same of what it holds, and tells no delay again."""
    joining = Joining(log)
    predict(log, ("a1", 1.0), ("a3", 2.0), ("a5", 3.0))
    label(log, ("a1", 1, 31.0), ("a3", 0, 4.0))
    put(log, "labels", ("a5", b"?"))
    joining.take()
    joining.commit()
    waiting = len(prediction("a5", 3.0))
    assert (joining.step.held(), joining.step.held_bytes()) == (3, waiting)
    assert sorted(joining.step.delays) == [2.0, 30.0]
    assert joining.step.dead_letters == {"invalid_json": 1}
    assert joining.step.newest() == 3.0
    joining.commit()
    assert joining.step.delays == []
    joining.close()
    again = Joining(log)
    again.take()
    assert again.step.held_bytes() == waiting
    again.commit()
    assert again.step.delays == []
    predict(log, ("a7", 1.0 + 2 * WAIT), ("b2", 1.0 + 2 * WAIT))
    again.run()
    again.run()
    assert again.step.held_bytes() == len(prediction("a7", 1.0 + 2 * WAIT)) * 2
    assert again.step.watermark() == 1.0 + 2 * WAIT
    again.close()


@pytest.mark.parametrize(("wins", "winner"), [(Winner.MAX, "true"), (Winner.MIN, 0)])
def test_the_largest_label_is_the_one_that_the_task_finds_largest(
    log: SqliteLog, wins: Winner, winner: LabelValue
) -> None:
    """Text labels of a binary task are accepted: "true" counts as above 0."""
    predict(log, ("a1", 1.0))
    label(log, ("a1", 0, 2.0), ("a1", "true", 3.0))
    predict(log, ("b1", 1.0 + 2 * WAIT))  # closes the window of a1
    (found,) = join(log, JoinPolicy(WAIT, wins), target=known)
    assert (found.id, found.label) == ("a1", winner)
