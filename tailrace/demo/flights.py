"""Declaration of the demo: predicts whether a departure will land late.

The label is known hours after the departure. A cancelled flight never gets one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tailrace import Category, Cyclic, Event, EventTime, Gate, Key, Label, Number, Online, Pipeline, Training
from tailrace.datafiles.read import Columns
from tailrace.triggers import Schedule

DATA = Path(__file__).with_name("flights.csv.gz")
COLUMNS = Columns(time="event_time", label="label", label_time="label_time")


class Flight(Event):
    """A departure with the data that are known at its scheduled time, and the weather at its airport."""

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
    """Return the pipeline under this name; several demos with different names can share a Kafka cluster."""
    return Pipeline(
        name,
        event=Flight,
        label=Label("late", kind="binary", wait="36h", base_rate=0.24),
        online=Online(seconds=0.25),  # wall-clock time; hours of the replay
        retrain=[Schedule("0 5 1,15 * *")],  # in addition to online updates, a run twice a month
        gate=Gate("log_loss"),
        training=Training(window=20_000, clock="event"),
    )


pipeline = declare()
