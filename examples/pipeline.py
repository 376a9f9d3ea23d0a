"""Pipeline of all examples: the probability that a payment turns out to be a fraud."""

from tailrace import Category, Event, EventTime, Key, Label, Number, Pipeline


class Payment(Event):
    """One payment at the time at which it is made."""

    id: Key
    at: EventTime
    country: Category
    amount: Number


pipeline = Pipeline(
    "payments",
    event=Payment,
    label=Label("fraud", kind="binary", wait="12h", base_rate=0.01),
)
