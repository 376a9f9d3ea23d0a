"""Score step (pure except for the clock that is passed in): event records become predictions and dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from tailrace.declaration.event import EventSchema
from tailrace.inference.models.columns import Floats
from tailrace.inference.models.encoding import Derived, Features, Inputs
from tailrace.inference.serving.loader import Serving
from tailrace.streams.log.base import RECORD_BYTES, Batch
from tailrace.streams.log.codec import MAX_BYTES, EventBatch, EventCodec, Malformed, encode
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, Record, size_of, trace_of

_KEY_AND_HEADERS = 16_384  # bytes, more than those of a prediction: an id has at most MAX_ID characters
_HEADERS, _VALUE = attrgetter("headers"), attrgetter("value")


class Scored(NamedTuple):
    """Report on a scored batch: seconds per stage, rows scored, malformed events, event times (unix seconds)."""

    release: int
    rows: int
    malformed: list[Malformed]
    decode_s: float
    features_s: float
    predict_s: float
    encode_s: float
    times: list[float]


class Model(Protocol):
    """Interface of a live model, as far as the step needs it."""

    def current(self) -> Serving:
        """The release that scores the next batch."""


class ScoreStep:
    """Step that scores batches of event records. Each event gives one prediction, or a dead letter with the reason.

    An event for which the model raises, alone, becomes a dead letter; so does one whose prediction would exceed
    `limit`, in bytes of key, value and headers.

    `clock`: current time in unix seconds; events that lie too far in its future are malformed. `max_bytes`: maximum
    size of an event. `on_batch`: called after each batch.
    """

    def __init__(
        self,
        schema: EventSchema,
        features: Features,
        live: Model,
        predictions_topic: str,
        *,
        clock: Callable[[], float] = time.time,
        max_bytes: int = MAX_BYTES,
        limit: int = RECORD_BYTES,
        on_batch: Callable[[Scored], None] | None = None,
    ) -> None:
        self._codec = EventCodec(schema, max_bytes)
        self._features, self._live, self._topic = features, live, predictions_topic
        self._clock, self._limit, self._on_batch = clock, limit, on_batch

    def __call__(self, batch: Batch) -> list[Out]:
        """Score a batch: predictions in the order of the events, then dead letters."""
        marks = [time.perf_counter()]
        events = self._codec.decode(batch.records, self._clock())
        marks.append(time.perf_counter())
        events, inputs, derived = self._encode(events)
        marks.append(time.perf_counter())
        serving = self._live.current()
        try:
            scores = serving.score(inputs)
        except Exception:  # the module is the user's: it may raise anything
            scores, failures = _score_by_halves(serving, inputs)
            unscored = {i: Malformed(events.records[i], "model", failure) for i, failure in failures.items()}
            events, derived = _without(events, unscored, derived)
        marks.append(time.perf_counter())
        if not np.isfinite(scores).all():
            events, scores, derived = _without_non_finite(events, scores, derived)
        outs = self._predictions(events, serving.release, scores.tolist(), derived)
        outs += map(dead_letter, events.malformed)
        marks.append(time.perf_counter())
        if self._on_batch is not None:
            self._on_batch(_scored(serving.release, events, marks))
        return outs

    def _encode(self, events: EventBatch) -> tuple[EventBatch, Inputs, Derived | None]:
        try:
            derived = self._features.derive(events.events)
            return events, self._features.encode(events.events, derived), derived
        except Exception:  # user functions may raise anything
            return self._encode_each(events)

    def _encode_each(self, events: EventBatch) -> tuple[EventBatch, Inputs, Derived | None]:
        """Encode event by event, so that an invalid event affects no other."""
        malformed: dict[int, Malformed] = {}
        parts, values = [self._features.encode([], [])], []
        for i, event in enumerate(events.events):
            try:
                derived = self._features.derive([event])
                parts.append(self._features.encode([event], derived))
                values += derived or []
            except Exception as error:
                malformed[i] = Malformed(events.records[i], "features", f"{type(error).__name__}: {error}")
        return _without(events, malformed)[0], Inputs.concat(parts), values or None

    def _predictions(
        self, events: EventBatch, release: int, scores: list[list[float]], derived: Derived | None
    ) -> list[Out]:
        topic, none = self._topic, [None] * len(scores)
        sources = [(record.partition, record.offset) for record in events.records]
        releases = [release] * len(scores)
        rows = map(_Prediction, events.ids, events.times, releases, scores, events.events, sources, derived or none)
        outs = [Out(topic, id.encode(), encode(row)) for id, row in zip(events.ids, rows, strict=True)]
        if any(map(_HEADERS, events.records)):
            outs = _traced(outs, events.records)
        largest = max(map(len, map(_VALUE, outs)), default=0)
        return outs if largest <= self._limit - _KEY_AND_HEADERS else self._bounded(outs, events)

    def _bounded(self, outs: list[Out], events: EventBatch) -> list[Out]:
        """Drop predictions above the limit; their events become dead letters."""
        kept: list[Out] = []
        for out, record in zip(outs, events.records, strict=True):
            size = size_of(out)
            if size <= self._limit:
                kept.append(out)
            else:
                detail = f"its prediction has {size:,} bytes, {out.topic} takes {self._limit:,}"
                events.malformed.append(Malformed(record, "too_large", detail))
        return kept


def _traced(outs: list[Out], records: Sequence[Record]) -> list[Out]:
    """Give each prediction the trace headers of its event."""
    traces = map(trace_of, records)
    return [
        Out(out.topic, out.key, out.value, trace) if trace else out for out, trace in zip(outs, traces, strict=True)
    ]


def _scored(release: int, events: EventBatch, marks: list[float]) -> Scored:
    decode, features, predict, encode = (after - before for before, after in pairwise(marks))
    return Scored(release, len(events.events), events.malformed, decode, features, predict, encode, events.times)


class _Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Wire form of `log.records.Prediction`. The event is encoded in place, which saves a copy."""

    id: str
    time: float
    release: int
    scores: list[float]
    features: Any
    source: tuple[int, int]
    derived: list[float | None] | None = None


def _without(
    events: EventBatch, malformed: dict[int, Malformed], derived: Derived | None = None
) -> tuple[EventBatch, Derived | None]:
    """The batch and its derived values without the events at these indices; they become dead letters."""
    kept = [i for i in range(len(events.events)) if i not in malformed]

    def pick(items: Sequence[Any]) -> list[Any]:
        return [items[i] for i in kept]

    bad = [*events.malformed, *malformed.values()]
    left = EventBatch(pick(events.events), pick(events.ids), pick(events.times), pick(events.records), bad)
    return left, None if derived is None else pick(derived)


def _score_by_halves(serving: Serving, inputs: Inputs) -> tuple[Floats, dict[int, str]]:
    """Score a batch for which the model raises, by halves down to single rows.

    Returns the scores of the other rows, and by row number what the model raised for that row alone.
    """
    failures: dict[int, str] = {}
    parts: list[Floats] = []

    def score(start: int, end: int) -> None:
        try:
            parts.append(serving.score(inputs.take(slice(start, end))))
        except Exception as error:
            if end - start == 1:
                failures[start] = f"{type(error).__name__}: {error}"
                return
            middle = (start + end) // 2
            score(start, middle)
            score(middle, end)

    score(0, inputs.rows)
    return np.concatenate(parts) if parts else serving.score(inputs.take(slice(0, 0))), failures


def _without_non_finite(
    events: EventBatch, scores: np.ndarray[Any, Any], derived: Derived | None
) -> tuple[EventBatch, np.ndarray[Any, Any], Derived | None]:
    fine = np.isfinite(scores).all(axis=1)
    malformed = {
        i: Malformed(events.records[i], "non_finite_score", f"scores {scores[i].tolist()}")
        for i in np.flatnonzero(~fine).tolist()
    }
    left, kept = _without(events, malformed, derived)
    return left, scores[fine], kept
