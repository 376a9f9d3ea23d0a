"""History as arrays: labels that count, the positions at which they become known, and model inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tailrace import Category, Event, EventTime, Key, Label, Number, Pipeline, feature
from tailrace.backtest.history.arrays import Delay, Stream, history
from tailrace.backtest.history.parts import Arrival
from tailrace.datafiles.read import Columns, Moment, replay
from tailrace.declaration.label import JoinPolicy
from tailrace.errors import BadData
from tailrace.streams.log.records import Out


class Trip(Event):
    id: Key
    at: EventTime
    line: Category
    speed: Number | None = None

    @feature
    def slowness(self) -> float | None:
        return None if self.speed is None else 1 / self.speed


class Plain(Event):
    id: Key
    x: Number


TRIPS = Pipeline("trips", event=Trip, label=Label("late", wait="1h"))
PLAIN = Pipeline("plain", event=Plain, label=Label("big"))


def trip(at: float, known: float | None, late: int = 1, **more: Any) -> dict[str, Any]:
    row = {"at": at, "line": 7, "known": known, "late": late, "speed": 2.0, **more}
    return {name: value for name, value in row.items() if value is not None}


def trips(*rows: dict[str, Any], pipeline: Pipeline = TRIPS) -> Stream:
    return history(replay(rows, pipeline, Columns(time="at", label="late", label_time="known")), pipeline)


def label(id: str, value: int, at: float) -> Moment:
    return Moment(at, "label", Out("plain.labels", id.encode(), b'{"id":"%b","label":%d}' % (id.encode(), value)))


def event(id: str, at: float, x: str = "1") -> Moment:
    return Moment(at, "event", Out("plain.events", id.encode(), b'{"id":"%b","x":%b}' % (id.encode(), x.encode())))


def test_a_label_is_known_before_the_first_event_after_it() -> None:
    """Labels become known in the order of their times, each just before the first event that is later."""
    stream = trips(trip(100, 250), trip(200, 210, late=0), trip(300, None), trip(400, 2_000))
    assert [Arrival(2, 1), Arrival(2, 0), Arrival(4, 3)] == stream.arrivals
    np.testing.assert_array_equal([1, 0, np.nan, 1], stream.targets)
    assert stream.times.tolist() == [100, 200, 300, 400]


def test_a_label_delayed_by_events() -> None:
    """With a delay of two events the label of event n becomes known just before event n + 3 is scored."""
    rows = [{"x": n, "big": n % 2} for n in range(5)]
    stream = history(replay(rows, PLAIN, Columns(label="big"), label_delay=2), PLAIN)
    assert stream.arrivals == [(3, 0), (4, 1), (5, 2), (5, 3), (5, 4)]


def test_labels_after_the_wait_are_left_out() -> None:
    """A label that arrives after the declared wait is neither learned nor counted, as in the join."""
    stream = trips(trip(0, 10_000), trip(20_000, None))
    assert stream.arrivals == []
    assert np.isnan(stream.targets).all()


def test_another_wait_can_be_given() -> None:
    """A given join policy replaces the declared one."""
    moments = replay([trip(0, 10_000)], TRIPS, Columns(time="at", label="late", label_time="known"))
    assert history(moments, TRIPS, JoinPolicy(wait=20_000)).targets.tolist() == [1.0]


def test_a_missing_label_has_the_declared_value() -> None:
    """An implicit label becomes known when the window closes; windows that are open at the end have no label."""
    pipeline = Pipeline("trips", event=Trip, label=Label("late", wait="1h", missing=0))
    stream = trips(trip(0, None), trip(100, 200), trip(9_000, None), pipeline=pipeline)
    assert stream.arrivals == [(2, 1), (3, 0)]
    np.testing.assert_array_equal([0, 1, np.nan], stream.targets)


def test_the_last_label_wins_if_declared() -> None:
    """With `wins="last"` a label becomes known when the window closes, or at the end of the history."""
    pipeline = Pipeline("plain", event=Plain, label=Label("big", wins="last", wait=10))
    moments = [event("a", 0), label("a", 0, 1), label("a", 1, 2), event("b", 20), label("b", 1, 21), label("b", 0, 22)]
    stream = history(moments, pipeline)
    assert stream.arrivals == [(2, 0), (2, 1)]
    assert stream.targets.tolist() == [1, 0]


def test_early_duplicate_and_unusable_labels() -> None:
    """A label before its event waits for it; duplicates, labels without an event and invalid ones change nothing."""
    moments = [label("a", 1, 0), event("a", 1), label("a", 0, 2), label("x", 1, 3), label("b", 7, 3), event("b", 4)]
    stream = history(moments, PLAIN)
    assert stream.arrivals == [(1, 0)]
    np.testing.assert_array_equal([1, np.nan], stream.targets)


def test_events_that_cannot_be_read_or_encoded_are_left_out() -> None:
    """Records that would become dead letters are not events and do not count in positions."""
    stream = history([event("a", 0), event("b", 1, '"x"'), event("c", 2), label("c", 1, 3), event("d", 4)], PLAIN)
    assert stream.ids == ["a", "c", "d"]
    assert stream.arrivals == [(2, 1)]
    raising = trips(trip(1, 2), trip(3, 4, speed=0.0), trip(5, 6))
    assert raising.ids == ["0", "2"]
    assert raising.times.tolist() == [1, 5]
    assert raising.arrivals == [(1, 0), (2, 1)]


def test_features_by_name_and_as_arrays() -> None:
    """By name, numbers are float, categories str and missing values absent; the arrays hold the same events."""
    stream = trips(trip(1, None, speed=4.0), trip(2, None, speed=None))
    assert stream.features == [{"speed": 4.0, "slowness": 0.25, "line": "7"}, {"line": "7"}]
    assert stream.inputs.rows == 2
    assert math.isnan(stream.inputs.numbers[1, 0])
    assert stream.buckets == (1024,)
    assert stream.optional == (True, True)


@pytest.mark.parametrize("events", [0, 1, 3, 9])
def test_a_head_is_independent_of_later_events(events: int) -> None:
    """The head of a history has only its own events, and labels that become known before the next event."""
    rows = [{"x": n, "big": n % 2} for n in range(5)]
    stream = history(replay(rows, PLAIN, Columns(label="big"), label_delay=1), PLAIN).head(events)
    assert len(stream) == min(events, 5)
    assert all(arrival.position <= events for arrival in stream.arrivals)
    assert len(stream.features) == stream.inputs.rows == len(stream.targets) == len(stream.times) == len(stream)


@pytest.mark.parametrize("events", [0, 1, 3, 100])
def test_a_delay_in_events_is_that_of_a_replay(events: int) -> None:
    """Labels that are delayed afterwards become known at the positions of a replay with that delay."""
    rows = [{"x": n, "big": n % 2} if n % 3 else {"x": n} for n in range(12)]
    sent = [history(replay(rows, PLAIN, Columns(label="big"), label_delay=d), PLAIN) for d in (0, events)]
    assert sent[0].delayed(Delay(events=events)).arrivals == sent[1].arrivals


def test_a_delay_in_seconds() -> None:
    """A delayed label becomes known before the first event at or after its time, never before its own event."""
    rows = [trip(at, at) for at in (0, 100, 150, 200, 300)]
    stream = trips(*rows)
    assert stream.delayed(Delay(seconds=100)).arrivals == [(1, 0), (3, 1), (4, 2), (4, 3), (5, 4)]
    assert stream.delayed(Delay(seconds=0)).arrivals == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert stream.delayed(Delay()) is stream


def test_delays_are_written_in_three_ways() -> None:
    """A delay is a number of events, a duration or natural; the error message for other text names all three."""
    assert Delay.parse("500") == Delay(events=500)
    assert Delay.parse("1.5h") == Delay(seconds=5_400)
    assert Delay.parse("natural") == Delay()
    with pytest.raises(BadData, match="natural; not '-3'"):
        Delay.parse("-3")
