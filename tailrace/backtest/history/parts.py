"""Parts of a history (pure): the next events of a file or a log, and the labels that became known meanwhile.

The pipeline's own join decides which labels count and which arrive too late. All policies and baselines of a backtest
therefore learn from the same labels, in the same order, at the same positions.
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
from tailrace.streams.join.label_codec import label_codec
from tailrace.streams.join.label_policy import Given
from tailrace.streams.join.state import Counts, Emitted, Head, PartitionJoin
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.records import Out, Record

FeatureDict: TypeAlias = "dict[str, float | str]"

PART_MOMENTS = 512  # moments per part: few enough to stay in the CPU cache


class Arrival(NamedTuple):
    """The label of event number `event` becomes known just before event number `position` is scored."""

    position: int
    event: int


class Part(NamedTuple):
    """The next events, and the labels that became known since the previous part, in order, with their `targets`.

    `features` is empty unless it was requested. Plain data that can be sent to another process.
    """

    ids: list[str]
    times: list[float]
    inputs: Inputs
    features: list[FeatureDict]
    arrivals: list[Arrival]
    targets: list[Target]


class _DecodedMoment(NamedTuple):
    """A moment with its decoded event; None for a label."""

    moment: Moment
    event: Event | None


def parts(moments: Iterable[Moment], pipeline: Pipeline, policy: JoinPolicy, *, dicts: bool) -> Iterator[Part]:
    """Convert moments to parts, without the records that a worker or a joiner would send to the dead-letter topic."""
    builder = _PartBuilder(pipeline, policy, dicts)
    remaining = iter(moments)
    while batch := list(islice(remaining, PART_MOMENTS)):
        yield builder.take(batch)
    yield builder.end()


class _PartBuilder:
    def __init__(self, pipeline: Pipeline, policy: JoinPolicy, dicts: bool) -> None:
        self._pipeline, self._dicts = pipeline, dicts
        self._decode = msgspec.json.Decoder(pipeline.schema.event).decode
        self._labels = label_codec(pipeline.label.fields, pipeline.schema.label_ids)
        self._join = PartitionJoin(policy, Counts())
        self._position = 0  # number of the next event
        self._moments = 0  # number of moments taken; with it, label numbers are unique, as the join requires

    def take(self, moments: Sequence[Moment]) -> Part:
        """Convert the next moments to a part: encoded events, and the labels that the join has emitted meanwhile."""
        pipeline = self._pipeline
        decoded = list(self._decoded(moments))
        events = [event for _, event in decoded if event is not None]
        inputs, encodable = encoded(ModelSpec.of(pipeline).features, events)
        if not all(encodable):
            keep = iter(encodable)
            decoded = [d for d in decoded if d.event is None or next(keep)]
            events = [event for event, ok in zip(events, encodable, strict=True) if ok]
        ids = self._ids(decoded, events)
        joined = list(self._joined(decoded, ids, self._times(decoded, events)))
        return Part(
            ids,
            [moment.time for moment, event in decoded if event is not None],
            inputs,
            feature_dicts(ModelSpec.of(pipeline).features, events, inputs) if self._dicts else [],
            [arrival for arrival, _ in joined],
            [pipeline.task.target(label) for _, label in joined],
        )

    def end(self) -> Part:
        """Return the last part: the labels that a policy such as `wins="last"` held back.

        Implicit labels are left out, because windows that are still open at the end prove nothing.
        """
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

    def _decoded(self, moments: Iterable[Moment]) -> Iterator[_DecodedMoment]:
        decode = self._decode
        for moment in moments:
            if moment.kind == "label":
                yield _DecodedMoment(moment, None)
                continue
            try:
                yield _DecodedMoment(moment, decode(moment.out.value or b""))
            except UNDECODABLE:
                continue

    def _joined(
        self, decoded: Sequence[_DecodedMoment], ids: Sequence[str], times: Sequence[float]
    ) -> Iterator[tuple[Arrival, LabelValue]]:
        """Run the moments through the join and yield its examples in order."""
        labels_by_number, join, first = self._usable_labels(decoded), self._join, self._position
        for number, (_, event) in enumerate(decoded):
            if event is None:
                emitted = join.labels(labels_by_number.get(number, ()))
            else:
                position = self._position
                record = Record("", 0, position, 0, None, b'{"event":%d}' % position)
                emitted = join.predictions([Head(ids[position - first], times[position - first])], [record])
                join.labels_end()
                emitted += join.advance()
                self._position += 1
            for one in _known(emitted):
                yield Arrival(self._position, one.event), one.label

    def _times(self, decoded: Iterable[_DecodedMoment], events: Sequence[Event]) -> list[float]:
        """Return the event times as the join takes them: unix seconds or row numbers."""
        times = [moment.time for moment, event in decoded if event is not None]
        schema = self._pipeline.schema
        return times if schema.time is None else schema.times(events, [int(time * 1000) for time in times])

    def _ids(self, decoded: Iterable[_DecodedMoment], events: Sequence[Event]) -> list[str]:
        """Return the ids of the events. Those of a class without a key are the record keys of the history."""
        if self._pipeline.schema.keys:
            return self._pipeline.schema.ids(events, ())
        return [(moment.out.key or b"").decode() for moment, event in decoded if event is not None]

    def _usable_labels(self, decoded: Iterable[_DecodedMoment]) -> dict[int, list[tuple[str, Given]]]:
        """Decode the usable label records, as {index in `decoded`: labels for the join}.

        A label without a time of its own became known at the time of its moment.
        """
        moments = {number: moment for number, (moment, event) in enumerate(decoded) if event is None}
        labels = self._labels.decode([_record(moment.out, n) for n, moment in moments.items()])
        usable: dict[int, list[tuple[str, Given]]] = {}
        for label, record in zip(labels.items, labels.records, strict=True):
            number = record.offset
            time = moments[number].time if label.time is None else to_seconds(label.time)
            try:
                given = Given(label.label, time, self._moments + number, self._pipeline.task.number(label.label))
            except (ValueError, OverflowError):  # a joiner would send it to the dead-letter topic
                continue
            usable[number] = [(label.key(), given)]
        self._moments += PART_MOMENTS
        return usable


class _Joined(msgspec.Struct, gc=False):
    event: int
    label: LabelValue
    implicit: bool = False


_decode = msgspec.json.Decoder(_Joined).decode


def _known(emitted: Iterable[Emitted]) -> Iterator[_Joined]:
    return (_decode(value) for _, value in emitted)


def encoded(features: Features, events: Sequence[Event]) -> tuple[Inputs, list[bool]]:
    """Encode events. Return the inputs of the events that can be encoded, and a flag per event: True if it can."""
    try:
        return features.encode(events), [True] * len(events)
    except Exception:  # functions of the user may raise anything; then find the events that fail
        parts, encodable = [features.encode([])], []
        for event in events:
            try:
                parts.append(features.encode([event]))
                encodable.append(True)
            except Exception:
                encodable.append(False)
        return Inputs.concat(parts), encodable


def feature_dicts(features: Features, events: Sequence[Event], inputs: Inputs) -> list[FeatureDict]:
    """Return the features of each event by name, as River takes them: numbers as float, categories as str.

    Missing values are left out.
    """
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
