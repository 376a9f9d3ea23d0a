"""Origins of recorded history: a file, or the topics of a log that hold events and labels.

    flights.csv.gz, trips.parquet            a file: see `tailrace.datafiles.read`
    kafka://host:9092/flights.events         events of this topic, labels of the pipeline's topic
    kafka://host:9092                        both topics of the pipeline
    sqlite:///.tailrace/log.db               both topics of the pipeline on an embedded log
    sqlite:///log.db?events=a&labels=b       other topics; other parameters are passed to the log

Events and labels of a log are taken in the order of their records' timestamps, so each label has its recorded delay.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tailrace.datafiles.read import Moment
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadData
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import Out, Record

_SCHEMES = ("kafka", "sqlite")


class LogOrigin(NamedTuple):
    """Topics of events and labels in the log at `url`; None: the topic of the pipeline."""

    url: str
    events: str | None = None
    labels: str | None = None

    def moments(self, pipeline: Pipeline, options: Mapping[str, str] | None = None) -> Iterator[Moment]:
        """Iterate over the events and labels that the log holds now. `options` are passed to `open_log`.

        Raise BadData if the file of an embedded log does not exist, and LogError.
        """
        from tailrace.streams.log.url import open_log

        address = urlsplit(self.url)
        if address.scheme == "sqlite" and not Path(address.path[1:]).exists():
            raise BadData(f"there is no file {address.path[1:]!r}: check the path in {self.url!r}")
        log = open_log(self.url, options)
        try:
            yield from moments_from_log(log, pipeline, self.events, self.labels)
        finally:
            log.close()


def origin(data: str) -> Path | LogOrigin:
    """Parse `--data` into a file path or the origin of a log. Raise BadData if it names two topics of events."""
    parts = urlsplit(data)
    if parts.scheme not in _SCHEMES or "://" not in data:
        return Path(data)
    parameters = parse_qsl(parts.query)
    values = dict(parameters)
    events, labels, path = values.get("events"), values.get("labels"), parts.path
    if parts.scheme == "kafka" and path.strip("/"):
        if events is not None:
            raise BadData(f"{data!r} names two topics of events: write {path.strip('/')!r} or {events!r}")
        events, path = path.strip("/"), ""
    others = urlencode([(name, value) for name, value in parameters if name not in ("events", "labels")])
    # urlunsplit would drop the empty host, and with it one of the three or four slashes before a file's path.
    url = f"{parts.scheme}://{parts.netloc}{urlunsplit(('', '', path, others, ''))}"
    return LogOrigin(url, events, labels)


def moments_from_log(
    log: Log, pipeline: Pipeline, events_topic: str | None = None, labels_topic: str | None = None
) -> Iterator[Moment]:
    """Iterate over the events and labels that the topics hold now, in the order of the records' timestamps.

    A timestamp that is smaller than an earlier one of its partition counts as equal to it. At equal times events come
    before labels. Raise TopicMissing, Unreachable.
    """
    topics = pipeline.topics
    sources = [
        *_partitions(log, events_topic or topics.events, "event", 0),
        *_partitions(log, labels_topic or topics.labels, "label", 1),
    ]
    for _, _, moment in heapq.merge(*sources, key=lambda item: item[:2]):
        yield moment


def _partitions(
    log: Log, topic: str, kind: Literal["event", "label"], rank: int
) -> list[Iterator[tuple[float, int, Moment]]]:
    begin, end = log.begin_positions(topic), log.end_positions(topic)
    return [_moments(log.scan(at, begin[at], end[at]), kind, rank) for at in sorted(end)]


def _moments(
    batches: Iterable[list[Record]], kind: Literal["event", "label"], rank: int
) -> Iterator[tuple[float, int, Moment]]:
    clock = float("-inf")
    for batch in batches:
        for record in batch:
            clock = max(clock, record.timestamp / 1000)
            out = Out(record.topic, record.key, record.value, record.headers, record.timestamp)
            yield clock, rank, Moment(clock, kind, out)
