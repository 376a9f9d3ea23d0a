"""The pipeline of all examples: how likely is a payment to turn out a fraud?"""

from tailrace import Category, Event, EventTime, Key, Label, Number, Pipeline


class Payment(Event, kw_only=True):
    """One payment, as it happens."""

    id: Key
    at: EventTime
    country: Category
    amount: Number


pipeline = Pipeline(
    "payments",
    event=Payment,
    label=Label("fraud", kind="binary", wait="12h", base_rate=0.01),
)
