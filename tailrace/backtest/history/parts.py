"""Moments of a file or a log as parts of a history (pure): some events on, and the labels that became known meanwhile.

The join of the pipeline itself decides which label counts and which comes too late, so that every learner of a backtest
learns from the same labels, in the same order, at the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import msgspec

from tailrace.datafiles.read import Moment
from tailrace.declaration.event import Event, to_seconds
from tailrace.declaration.label import JoinPolicy
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.task import LabelValue, Target
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.streams.join.label_policy import Given
from tailrace.streams.join.state import Counts, Emitted, Head, PartitionJoin
from tailrace.streams.join.step import label_codec
from tailrace.streams.log.records import Out, Record

FeatureDict: TypeAlias = "dict[str, float | str]"

TOGETHER = 512  # moments that are taken at once: few enough to stay in the cache


class Arrival(NamedTuple):
    """The label of event number `event` becomes known just before event number `position` is scored."""

    position: int
    event: int


class Part(NamedTuple):
    """The next events, and the labels that became known since the last part, in their order, with their `targets`.

    `features` is empty where they were not asked for. Plain data: it travels between processes.
    """

    ids: list[str]
    times: list[float]
    inputs: Inputs
    features: list[FeatureDict]
    arrivals: list[Arrival]
    targets: list[Target]


class _Happened(NamedTuple):
    """A moment whose event could be read, or a label."""

    moment: Moment
    event: Event | None


def parts(moments: Iterable[Moment], pipeline: Pipeline, policy: JoinPolicy, *, dicts: bool) -> Iterator[Part]:
    """A history part by part. What a worker or a joiner would put among the dead letters is left out here as well."""
    reader = _Reader(pipeline, policy, dicts)
    coming = iter(moments)
    while some := list(islice(coming, TOGETHER)):
        yield reader.take(some)
    yield reader.end()


class _Reader:
    def __init__(self, pipeline: Pipeline, policy: JoinPolicy, dicts: bool) -> None:
        self._pipeline, self._dicts = pipeline, dicts
        self._decode = msgspec.json.Decoder(pipeline.schema.event).decode
        self._labels = label_codec(pipeline.label.fields)
        self._join = PartitionJoin(policy, Counts())
        self._position = 0  # of the next event
        self._taken = 0  # labels, by which the join tells them apart

    def take(self, moments: Sequence[Moment]) -> Part:
        """The part of the next moments."""
        pipeline = self._pipeline
        happened = list(self._read(moments))
        events = [event for _, event in happened if event is not None]
        inputs, good = encoded(ModelSpec.of(pipeline).features, events)
        if not all(good):
            fine = iter(good)
            happened = [h for h in happened if h.event is None or next(fine)]
            events = [event for event, is_good in zip(events, good, strict=True) if is_good]
        ids = pipeline.schema.ids(events)
        joined = list(self._joined(happened, ids, self._times(happened, events)))
        return Part(
            ids,
            [moment.time for moment, event in happened if event is not None],
            inputs,
            feature_dicts(ModelSpec.of(pipeline).features, events, inputs) if self._dicts else [],
            [arrival for arrival, _ in joined],
            [pipeline.task.target(label) for _, label in joined],
        )

    def end(self) -> Part:
        """No more will come: those labels that wait for better ones count; silence says nothing yet."""
        self._join.labels_end(math.inf)
        joined = [one for one in _known(self._join.advance()) if not one.implicit]
        return Part(
            [],
            [],
            ModelSpec.of(self._pipeline).features.encode([]),
            [],
            [Arrival(self._position, one.event) for one in joined],
            [self._pipeline.task.target(one.label) for one in joined],
        )

    def _read(self, moments: Iterable[Moment]) -> Iterator[_Happened]:
        decode = self._decode
        for moment in moments:
            if moment.kind == "label":
                yield _Happened(moment, None)
                continue
            try:
                yield _Happened(moment, decode(moment.out.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue

    def _joined(
        self, happened: Sequence[_Happened], ids: Sequence[str], times: Sequence[float]
    ) -> Iterator[tuple[Arrival, LabelValue]]:
        """Every example of the join, in its order."""
        givens, join, first = self._givens(happened), self._join, self._position
        for number, (_, event) in enumerate(happened):
            if event is None:
                emitted = join.labels(givens.get(number, ()))
            else:
                position = self._position
                record = Record("", 0, position, 0, None, b'{"event":%d}' % position)
                emitted = join.predictions([Head(ids[position - first], times[position - first])], [record])
                join.labels_end()
                emitted += join.advance()
                self._position += 1
            for one in _known(emitted):
                yield Arrival(self._position, one.event), one.label

    def _times(self, happened: Iterable[_Happened], events: Sequence[Event]) -> list[float]:
        """When each event happened, as the join takes it: unix seconds, or row numbers."""
        times = [moment.time for moment, event in happened if event is not None]
        schema = self._pipeline.schema
        return times if schema.time is None else schema.times(events, [int(time * 1000) for time in times])

    def _givens(self, happened: Iterable[_Happened]) -> dict[int, list[tuple[str, Given]]]:
        """By its number among what happened, each label record that can be used, as the join takes it. One that does
        not say when it became known did at its moment."""
        moments = {number: moment for number, (moment, event) in enumerate(happened) if event is None}
        labels = self._labels.decode([_record(moment.out, n) for n, moment in moments.items()])
        found: dict[int, list[tuple[str, Given]]] = {}
        for label, record in zip(labels.items, labels.records, strict=True):
            number = record.offset
            time = moments[number].time if label.time is None else to_seconds(label.time)
            try:
                given = Given(label.label, time, self._taken + number, self._pipeline.task.number(label.label))
            except (ValueError, OverflowError):  # a joiner would put it among the dead letters
                continue
            found[number] = [(label.id, given)]
        self._taken += TOGETHER
        return found


class _Joined(msgspec.Struct, gc=False):
    event: int
    label: LabelValue
    implicit: bool = False


_decode = msgspec.json.Decoder(_Joined).decode


def _known(emitted: Iterable[Emitted]) -> Iterator[_Joined]:
    return (_decode(value) for _, value in emitted)


def encoded(features: Features, events: Sequence[Event]) -> tuple[Inputs, list[bool]]:
    """What a model sees of those events that could be encoded, and for every event whether it could."""
    try:
        return features.encode(events), [True] * len(events)
    except Exception:  # functions of the user may raise anything; then each event answers for itself
        parts, good = [features.encode([])], []
        for event in events:
            try:
                parts.append(features.encode([event]))
                good.append(True)
            except Exception:
                good.append(False)
        return Inputs.concat(parts), good


def feature_dicts(features: Features, events: Sequence[Event], inputs: Inputs) -> list[FeatureDict]:
    """The features of each event by name, as River takes them: numbers as floats, categories as text; what is missing
    is left out."""
    rows: list[FeatureDict] = [
        {name: value for name, value in zip(features.numbers, numbers, strict=True) if value == value}  # not NaN
        for numbers in inputs.numbers.tolist()
    ]
    for name in features.categories:
        for row, event in zip(rows, events, strict=True):
            value = getattr(event, name)
            if value is not None:
                row[name] = str(value)
    return rows


def _record(out: Out, offset: int) -> Record:
    return Record(out.topic, 0, offset, out.timestamp or 0, out.key, out.value)
