"""What the topics tell of one event (pure): the parts of the story, which label counts, which release learned it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from tailrace.declaration.label import Winner
from tailrace.declaration.task import LabelValue
from tailrace.declaration.training import Training
from tailrace.explain.release import fact
from tailrace.inference.releases.manifest import Manifest, Range, Updates
from tailrace.retrain.selection.split import repeats
from tailrace.streams.log.records import Example, Record


class Place(msgspec.Struct, frozen=True):
    """Where a record lies, and when it was written (unix seconds; None: it was removed, or nobody knows)."""

    topic: str
    partition: int
    offset: int
    written: float | None = None

    @classmethod
    def of(cls, record: Record) -> Place:
        """Where this record lies."""
        return cls(record.topic, record.partition, record.offset, record.timestamp / 1000)


class Happened(msgspec.Struct, frozen=True):
    """The event as it came; `value` None: the record was removed."""

    place: Place
    value: Any


class Predicted(msgspec.Struct, frozen=True):
    """What was predicted. `place` None: the record was removed, its example tells."""

    place: Place | None
    event_time: float
    scores: list[float]
    release: int


class Scorer(msgspec.Struct, frozen=True):
    """The release that scored; all that is known of one that was removed is its version."""

    version: int
    kept: bool
    reason: str = ""
    created: float | None = None
    examples: int = 0
    trained_through: float | None = None
    ranges: list[Range] = []


class Labelled(msgspec.Struct, frozen=True):
    """One label record. `counts` None: that is not decided yet; `why` says it in words."""

    place: Place
    label: LabelValue
    time: float
    counts: bool | None
    why: str


class Learnable(msgspec.Struct, frozen=True):
    """The example that the join made."""

    place: Place
    label: LabelValue
    label_time: float
    implicit: bool


class Taught(msgspec.Struct, frozen=True):
    """The oldest release that is still there and has learned the example. `first`: none learned it before."""

    version: int
    created: float
    reason: str
    how: str
    first: bool


class Refusal(msgspec.Struct, frozen=True):
    """A dead letter of the event, its prediction or its label."""

    letter: str
    source: str
    reason: str
    detail: str


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All that the topics tell of one id."""

    id: str
    event: Happened | None = None
    prediction: Predicted | None = None
    release: Scorer | None = None
    labels: list[Labelled] = []
    example: Learnable | None = None
    taught: Taught | None = None
    untaught: str = ""
    """Why no release is known to have learned the example."""
    refused: list[Refusal] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is known."""
        return not (self.event or self.prediction or self.labels or self.example or self.refused)


class Joined(msgspec.Struct, frozen=True):
    """How far the joiner is: the position in the labels, and up to which event time windows have closed."""

    labels: int = 0
    watermark: float = -math.inf


def verdict(
    offset: int,
    given: tuple[LabelValue, float],
    closes: float | None,
    wins: Winner,
    made: Example | None,
    done: Joined,
) -> tuple[bool | None, str]:
    """Whether the label at this offset, given with its time, counts, and why.

    `closes`: when the window of its event does; None: there is no prediction yet. `made`: the example, if there is one.
    """
    if offset >= done.labels:
        return None, "waits for the joiner"
    if closes is None:
        return None, "waits for the prediction"
    if given[1] >= closes:
        return False, "does not count: it became known after the window had closed"
    if made is None and done.watermark < closes and wins is not Winner.FIRST:
        return None, "waits for the window to close"
    if made is None:
        return None, "was written after the window had closed, or the example was removed"
    if made.implicit:
        return False, "does not count: it was written after the window had closed"
    if wins is Winner.MEAN:
        return True, "counts: the mean of all does"
    if given == (made.label, made.label_time):
        return True, f"counts: it is the {wins} one"
    return False, f"does not count: the {wins} one does"


def teaching(manifests: Iterable[Manifest], place: Place) -> Taught | None:
    """The oldest of these releases that has learned the example at `place`."""
    known = {manifest.version: manifest for manifest in manifests}
    for version, manifest in sorted(known.items()):
        if any(_holds(part, place) for part in manifest.ranges):
            how, newest = _learning(manifest, place)
            first = newest or manifest.parent == 0 or manifest.parent in known
            return Taught(version, manifest.created, manifest.reason, how, first)
    return None


def _learning(manifest: Manifest, place: Place) -> tuple[str, bool]:
    """How a release came to learn an example, and whether that was its own last step."""
    updates = manifest.updates
    if updates is None:
        plan = fact(manifest.facts, "plan", Training) or Training()
        chosen = "" if repeats(plan) else f", if {type(plan.data).__name__}() chose it: offsets alone do not tell"
        return f"in a run{chosen}", False
    number = _update(updates, place)
    if number is None:
        return "from the memory that its chain of updates began with", False
    many = len(updates.learned)
    return f"in update {number + 1} of the {many} that its chain has", number == many - 1


def _update(updates: Updates, place: Place) -> int | None:
    """Which update of a chain learned the example, counted from 0; None when it was there before."""
    at = updates.starts.get(place.partition)
    if at is None or place.offset < at:
        return None
    for number, chunk in enumerate(updates.learned):
        at += chunk.get(place.partition, 0)
        if place.offset < at:
            return number
    return None


def _holds(part: Range, place: Place) -> bool:
    return (part.topic, part.partition) == (place.topic, place.partition) and part.start <= place.offset < part.end
