"""The demo's declaration: will this departure land late? Known hours later, and never for a cancelled flight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tailrace import Category, Cyclic, Event, EventTime, Gate, Key, Label, Number, Online, Pipeline, Training
from tailrace.datafiles.read import Columns
from tailrace.triggers import Schedule

DATA = Path(__file__).with_name("flights.csv.gz")
COLUMNS = Columns(time="event_time", label="label", label_time="label_time")


class Flight(Event):
    """A departure as it is known when it is due, with the weather at its airport."""

    id: Key
    event_time: EventTime
    carrier: Category
    tailnum: Category | None = None
    origin: Category
    dest: Category
    distance: Number
    sched_dur: Number
    month: Annotated[float, Cyclic(12)]
    dow: Annotated[float, Cyclic(7)]
    dep_minute: Annotated[float, Cyclic(1440)]
    temp: Number | None = None
    dewp: Number | None = None
    humid: Number | None = None
    wind_dir: Annotated[float, Cyclic(360)] | None = None
    wind_speed: Number | None = None
    wind_gust: Number | None = None
    precip: Number | None = None
    pressure: Number | None = None
    visib: Number | None = None
    plane_year: Number | None = None
    seats: Number | None = None


def declare(name: str = "flights") -> Pipeline:
    """The pipeline under a name of its own, so that several demos can share a Kafka cluster."""
    return Pipeline(
        name,
        event=Flight,
        label=Label("late", kind="binary", wait="36h", base_rate=0.24),
        online=Online(seconds=0.25),  # of the wall: hours of the replay
        retrain=[Schedule("0 5 1,15 * *")],  # beside online updates, a whole run twice a month
        gate=Gate("log_loss"),
        training=Training(window=20_000, clock="event"),
    )


pipeline = declare()
