"""Where history comes from: a file, or the topics of a log in which events and labels were kept as they came.

    flights.csv.gz, trips.parquet            a file: see `tailrace.datafiles.read`
    kafka://host:9092/flights.events         events of this topic, labels of the pipeline's own
    kafka://host:9092                        both topics of the pipeline
    sqlite:///.tailrace/log.db               the same of an embedded log
    sqlite:///log.db?events=a&labels=b       other topics; what else stands there is for the log

From a log, events and labels come in the order of the records' timestamps: each label as late as it was.
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
    """Topics of the log at `url`; None: the pipeline's own."""

    url: str
    events: str | None = None
    labels: str | None = None

    def moments(self, pipeline: Pipeline, options: Mapping[str, str] | None = None) -> Iterator[Moment]:
        """All that the log holds now. `options` are those of `tailrace.streams.log.url.open_log`.

        Raises BadData where there is no such file, and LogError.
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
    """What `--data` names. Raises BadData for an address with a topic given twice."""
    parts = urlsplit(data)
    if parts.scheme not in _SCHEMES or "://" not in data:
        return Path(data)
    given = parse_qsl(parts.query)
    named = dict(given)
    events, labels, path = named.get("events"), named.get("labels"), parts.path
    if parts.scheme == "kafka" and path.strip("/"):
        if events is not None:
            raise BadData(f"{data!r} names two topics of events: write {path.strip('/')!r} or {events!r}")
        events, path = path.strip("/"), ""
    rest = urlencode([(name, value) for name, value in given if name not in ("events", "labels")])
    # A file's path keeps its three or four slashes, which urlunsplit would not see as a place without a host.
    url = f"{parts.scheme}://{parts.netloc}{urlunsplit(('', '', path, rest, ''))}"
    return LogOrigin(url, events, labels)


def moments_from_log(
    log: Log, pipeline: Pipeline, events_topic: str | None = None, labels_topic: str | None = None
) -> Iterator[Moment]:
    """The events and labels that the topics hold now, by the records' timestamps, which within a partition never run
    back here. At the same moment events come before labels. Raises TopicMissing, Unreachable."""
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
