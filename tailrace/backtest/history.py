"""History as arrays (pure): what happened, and from which event on each label was known.

The join of the pipeline itself decides which label counts and which comes too late, so that every learner of a backtest
learns from the same labels, in the same order, at the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.features import Features, Inputs
from streams.durations import seconds
from streams.events import DeclarationError, Event, to_seconds
from streams.join_step import label_codec
from streams.joining import Counts, Head, PartitionJoin
from streams.label_policy import Given, JoinPolicy
from streams.records import LabelValue, Out, Record
from tailrace.errors import BadData
from tailrace.pipeline import Pipeline
from tailrace.sources import Moment

FeatureDict: TypeAlias = "dict[str, float | str]"


class Delay(NamedTuple):
    """How late labels are: so many events, or so many seconds, after their own event; neither: as late as they were."""

    events: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Delay:
        """Of "500", "12h" or "natural". Raises BadData."""
        if text == "natural":
            return cls()
        if text.isascii() and text.isdigit():
            return cls(events=int(text))
        try:
            return cls(seconds=seconds(text))
        except DeclarationError:
            raise BadData(
                f'a label delay is a number of events such as 500, a duration such as "12h", or natural; not {text!r}'
            ) from None


class Arrival(NamedTuple):
    """The label of event number `event` becomes known just before event number `position` is scored."""

    position: int
    event: int


@dataclass(frozen=True)
class Stream:
    """n events in the order in which they are scored, and the labels that came.

    `times`: unix seconds (or row numbers) [n], never running back. `targets` [n]: NaN where no label ever came.
    `arrivals`: in the order in which labels became known; position n: after the last event. `optional` and `buckets`
    say of the columns of `inputs` what `inference.features.Features` does. Plain data: it travels between processes.
    """

    ids: list[str]
    times: NDArray[np.float64]
    inputs: Inputs
    features: list[FeatureDict]
    targets: NDArray[np.float32]
    arrivals: list[Arrival]
    optional: tuple[bool, ...]
    buckets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def delayed(self, delay: Delay) -> Stream:
        """The same history, had its labels (those that silence stood for too) been late by `delay`."""
        if delay == Delay():
            return self
        own = np.array(sorted(arrival.event for arrival in self.arrivals), np.int64)
        if delay.events is not None:
            positions = np.minimum(own + delay.events + 1, len(self))
        else:  # never before the event itself, however short the delay
            due = self.times[own] + (delay.seconds or 0.0)
            positions = np.maximum(np.searchsorted(self.times, due), own + 1)
        return replace(self, arrivals=list(map(Arrival, positions.tolist(), own.tolist())))

    def head(self, events: int) -> Stream:
        """The first so many events, and the labels that became known before the next one."""
        arrivals = [arrival for arrival in self.arrivals if arrival.position <= events and arrival.event < events]
        rows = slice(0, events)
        return replace(
            self,
            ids=self.ids[rows],
            times=self.times[rows],
            inputs=self.inputs.take(rows),
            features=self.features[rows],
            targets=self.targets[rows],
            arrivals=arrivals,
        )


class _Happened(NamedTuple):
    """A moment whose event could be read, or a label."""

    moment: Moment
    event: Event | None


def history(
    moments: Iterable[Moment], pipeline: Pipeline, policy: JoinPolicy | None = None, *, dicts: bool = True
) -> Stream:
    """Moments of a file or a log as arrays. `policy` stands in for the declaration's own (another wait). Without
    `dicts` the features are there as arrays only.

    What a worker or a joiner would put among the dead letters is left out here as well.
    """
    happened = list(_read(moments, pipeline.schema.event))
    events = [event for _, event in happened if event is not None]
    inputs, good = encoded(pipeline.features, events)
    fine = iter(good)
    kept = [h for h in happened if h.event is None or next(fine)]
    events = [event for event, is_good in zip(events, good, strict=True) if is_good]
    ids, times = pipeline.schema.ids(events), [moment.time for moment, event in kept if event is not None]
    targets = np.full(len(events), np.nan, np.float32)
    arrivals: list[Arrival] = []
    for position, index, label in _joined(kept, ids, pipeline, policy or pipeline.policy):
        arrivals.append(Arrival(position, index))
        targets[index] = pipeline.task.target(label)
    return Stream(
        ids,
        np.array(times, np.float64),
        inputs,
        feature_dicts(pipeline.features, events, inputs) if dicts else [],
        targets,
        arrivals,
        tuple(pipeline.features.optional),
        tuple(pipeline.features.buckets),
    )


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


def _read(moments: Iterable[Moment], kind: type[Event]) -> Iterator[_Happened]:
    decoder = msgspec.json.Decoder(kind)
    for moment in moments:
        if moment.kind == "label":
            yield _Happened(moment, None)
            continue
        try:
            yield _Happened(moment, decoder.decode(moment.out.value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue


def _joined(
    happened: Sequence[_Happened], ids: Sequence[str], pipeline: Pipeline, policy: JoinPolicy
) -> Iterator[tuple[int, int, LabelValue]]:
    """(position, event, label) of every example of the join, in its order."""
    join = PartitionJoin(policy, Counts())
    times, givens = _times(happened, pipeline), _givens(happened, pipeline)
    position = 0
    for number, (_, event) in enumerate(happened):
        if event is None:
            emitted = join.labels(givens.get(number, ()))
        else:
            record = Record("", 0, position, 0, None, b'{"event":%d}' % position)
            emitted = join.predictions([Head(ids[position], times[position])], [record])
            join.labels_end()
            emitted += join.advance()
            position += 1
        yield from ((position, joined.event, joined.label) for joined in map(_decode, (e for _, e in emitted)))
    join.labels_end(math.inf)  # no more will come: those that wait for better ones count; silence says nothing yet
    closed = map(_decode, (value for _, value in join.advance()))
    yield from ((position, joined.event, joined.label) for joined in closed if not joined.implicit)


class _Joined(msgspec.Struct, gc=False):
    event: int
    label: LabelValue
    implicit: bool = False


_decode = msgspec.json.Decoder(_Joined).decode


def _times(happened: Iterable[_Happened], pipeline: Pipeline) -> list[float]:
    """When each event happened, as the join takes it: unix seconds, or row numbers."""
    moments = [(moment, event) for moment, event in happened if event is not None]
    if pipeline.schema.time is None:
        return [moment.time for moment, _ in moments]
    return pipeline.schema.times([event for _, event in moments], [int(moment.time * 1000) for moment, _ in moments])


def _givens(happened: Iterable[_Happened], pipeline: Pipeline) -> dict[int, list[tuple[str, Given]]]:
    """By its number among what happened, each label record that can be used, as the join takes it. One that does not
    say when it became known did at its moment."""
    moments = {number: moment for number, (moment, event) in enumerate(happened) if event is None}
    labels = label_codec(pipeline.label.fields).decode([_record(moment.out, n) for n, moment in moments.items()])
    found: dict[int, list[tuple[str, Given]]] = {}
    for label, record in zip(labels.items, labels.records, strict=True):
        number = record.offset
        time = moments[number].time if label.time is None else to_seconds(label.time)
        try:
            found[number] = [(label.id, Given(label.label, time, number, pipeline.task.target(label.label)))]
        except (ValueError, OverflowError):  # a joiner would put it among the dead letters
            continue
    return found


def _record(out: Out, offset: int) -> Record:
    return Record(out.topic, 0, offset, out.timestamp or 0, out.key, out.value)
