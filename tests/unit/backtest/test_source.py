"""History from a log, in the order of timestamps and with the recorded label delays."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from tailrace import Event, EventTime, Key, Label, Number, Pipeline
from tailrace.backtest.history.arrays import history
from tailrace.backtest.source import LogOrigin, moments_from_log, origin
from tailrace.datafiles.read import Columns, replay
from tailrace.errors import BadData
from tailrace.streams.log.base import Topic, TopicMissing
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog
from tailrace.streams.log.topology import topology

START = 1_700_000_000.0


class Trip(Event):
    id: Key
    at: EventTime
    x: Number


TRIPS = Pipeline("trips", event=Trip, label=Label("late", wait="1d"))


def out(topic: str, id: str, value: str, seconds: float, partition: int = 0) -> Out:
    return Out(topic, id.encode(), value.encode(), timestamp=int((START + seconds) * 1000), partition=partition)


def event(id: str, seconds: float, partition: int = 0) -> Out:
    return out("trips.events", id, f'{{"id":"{id}","at":{START + seconds},"x":1}}', seconds, partition)


def label(id: str, seconds: float, partition: int = 0) -> Out:
    return out("trips.labels", id, f'{{"id":"{id}","label":1}}', seconds, partition)


def log_with(path: Path, *outs: Out, partitions: int = 2) -> SqliteLog:
    log = SqliteLog(path)
    log.create(topology(TRIPS, partitions))
    writer = log.writer()
    writer.write(outs)
    writer.commit()
    writer.close()
    return log


def order(log: SqliteLog) -> list[tuple[str, float]]:
    moments = moments_from_log(log, TRIPS)
    return [((m.out.key or b"").decode() + m.kind[0], round(m.time - START, 3)) for m in moments]


def test_partitions_are_merged_by_time(tmp_path: Path) -> None:
    """Records of all partitions of both topics come in the order of their timestamps."""
    log = log_with(
        tmp_path / "log.db", event("a", 0), event("c", 20), event("b", 10, 1), label("b", 15, 1), label("a", 30)
    )
    assert order(log) == [("ae", 0), ("be", 10), ("bl", 15), ("ce", 20), ("al", 30)]
    log.close()


def test_an_event_comes_before_its_label(tmp_path: Path) -> None:
    """At equal times events come first, and times never decrease within a partition."""
    log = log_with(tmp_path / "log.db", label("a", 5), event("a", 5), event("b", 3), event("c", 4, 1))
    assert order(log) == [("ce", 4), ("ae", 5), ("be", 5), ("al", 5)]
    log.close()


def test_a_log_gives_the_history_of_the_file_that_was_sent(tmp_path: Path) -> None:
    """A file that was sent to a log gives the same history as the log, with the same label delays."""
    rows = [
        {"at": START + 60 * n, "x": n, "late": n % 2, "known": START + 60 * n + 100 + 37 * (n % 5)} for n in range(60)
    ]
    moments = list(replay(rows, TRIPS, Columns(time="at", label="late", label_time="known")))
    log = log_with(tmp_path / "log.db", *(m.out for m in moments))
    log.close()
    source = origin(f"sqlite:///{tmp_path}/log.db")
    assert isinstance(source, LogOrigin)
    from_log, from_file = history(source.moments(TRIPS), TRIPS), history(moments, TRIPS)
    assert from_file.ids == from_log.ids
    assert from_file.arrivals == from_log.arrivals
    np.testing.assert_array_equal(from_file.targets, from_log.targets)
    np.testing.assert_array_equal(from_file.times, from_log.times)


def test_unreadable_records_are_left_out(tmp_path: Path) -> None:
    """Tombstones and broken records are skipped."""
    broken = Out("trips.events", b"x", None, timestamp=int(START * 1000), partition=0)
    noise = out("trips.labels", "a", "[", 1)
    log = log_with(tmp_path / "log.db", broken, noise, event("a", 2), label("a", 3))
    stream = history(moments_from_log(log, TRIPS), TRIPS)
    log.close()
    assert (stream.ids, stream.targets.tolist(), len(stream.arrivals)) == (["a"], [1.0], 1)


def test_other_topics_can_be_named(tmp_path: Path) -> None:
    """Events and labels can be read from any topic; the error for a missing topic names it."""
    log = log_with(tmp_path / "log.db", label("a", 3))
    log.create([Topic("elsewhere")])
    writer = log.writer()
    writer.write([out("elsewhere", "a", f'{{"id":"a","at":{START},"x":1}}', 0)])
    writer.commit()
    writer.close()
    log.close()
    url = f"sqlite:///{tmp_path}/log.db"
    source = origin(f"{url}?events=elsewhere")
    assert isinstance(source, LogOrigin)
    assert [moment.kind for moment in source.moments(TRIPS)] == ["event", "label"]
    with pytest.raises(TopicMissing, match="nowhere"):
        list(LogOrigin(url, labels="nowhere").moments(TRIPS))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a/b.csv.gz", Path("a/b.csv.gz")),
        ("C:/data.parquet", Path("C:/data.parquet")),
        ("kafka://one:9092,two:9092/flights.events", LogOrigin("kafka://one:9092,two:9092", "flights.events")),
        ("kafka://one:9092", LogOrigin("kafka://one:9092")),
        (
            "kafka://one:9092/e?labels=l&security.protocol=SSL",
            LogOrigin("kafka://one:9092?security.protocol=SSL", "e", "l"),
        ),
        ("sqlite:///a/b.db", LogOrigin("sqlite:///a/b.db")),
        (
            "sqlite:////a/b.db?events=e&labels=l&synchronous=full",
            LogOrigin("sqlite:////a/b.db?synchronous=full", "e", "l"),
        ),
    ],
)
def test_addresses_and_paths(data: str, expected: Path | LogOrigin) -> None:
    """URLs of a log are parsed into its topics; any other text is a file path."""
    assert expected == origin(data)


def test_mistakes_in_addresses_are_named(tmp_path: Path) -> None:
    """Two topics of events are an error, and so is a missing file, which is not created."""
    with pytest.raises(BadData, match="two topics of events"):
        origin("kafka://one:9092/a?events=b")
    missing = tmp_path / "none.db"
    with pytest.raises(BadData, match=r"no file .*none\.db"):
        list(LogOrigin(f"sqlite:///{missing}").moments(TRIPS))
    assert not missing.exists()


@pytest.mark.kafka
def test_history_from_a_kafka_cluster(kafka_bootstrap: str) -> None:
    """Events of the topic in the URL and labels of the pipeline's topic are merged by time."""
    from tailrace.streams.log.kafka.log import KafkaLog

    name = f"trips-{uuid4().hex[:8]}"
    pipeline = Pipeline(name, event=Trip, label=Label("late"))
    log = KafkaLog(kafka_bootstrap)
    log.create([Topic(f"{name}.raw", 2), Topic(pipeline.topics.labels, 2)])
    writer = log.writer()
    writer.write(
        [
            *(msgspec.structs.replace(event(id, at, at % 2), topic=f"{name}.raw") for id, at in (("a", 0), ("b", 1))),
            *(
                msgspec.structs.replace(label(id, at, 0), topic=pipeline.topics.labels)
                for id, at in (("b", 2), ("a", 5))
            ),
            msgspec.structs.replace(event("c", 3, 1), topic=f"{name}.raw"),
        ]
    )
    writer.flush()
    writer.close()
    log.close()
    source = origin(f"kafka://{kafka_bootstrap}/{name}.raw")
    assert isinstance(source, LogOrigin)
    stream = history(source.moments(pipeline), pipeline)
    assert (stream.ids, stream.arrivals) == (["a", "b", "c"], [(2, 1), (3, 0)])
