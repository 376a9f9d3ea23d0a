"""History of one event (pure): its steps, which labels count, and which release learned its example.

The field names are those of `tailrace explain --json`.
"""

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
    """Position of a record, and its timestamp in unix seconds; None if the record was removed."""

    topic: str
    partition: int
    offset: int
    written: float | None = None

    @classmethod
    def of(cls, record: Record) -> Place:
        """Return the place of a record."""
        return cls(record.topic, record.partition, record.offset, record.timestamp / 1000)


class EventStep(msgspec.Struct, frozen=True):
    """The event. `value`: decoded record; None if the record was removed."""

    place: Place
    value: Any


class PredictionStep(msgspec.Struct, frozen=True):
    """The prediction for the event, from its record, or from the example if the record was removed.

    `place`: None if the record was removed; `event_time`: unix seconds; `scores`: shape [outputs].
    """

    place: Place | None
    event_time: float
    scores: list[float]
    release: int


class ReleaseStep(msgspec.Struct, frozen=True):
    """The release that made the prediction. `kept`: False if it was removed; then only its version is known.

    `created`, `trained_through`: unix seconds; `examples`: number of examples it had learned, at the offsets `ranges`.
    """

    version: int
    kept: bool
    reason: str = ""
    created: float | None = None
    examples: int = 0
    trained_through: float | None = None
    ranges: list[Range] = []


class LabelStep(msgspec.Struct, frozen=True):
    """One label record. `counts`: True if it determines the example, None if undecided; `why`: the reason in words.

    `time`: time at which the label became known, unix seconds.
    """

    place: Place
    label: LabelValue
    time: float
    counts: bool | None
    why: str


class ExampleStep(msgspec.Struct, frozen=True):
    """The example that the join emitted. `implicit`: no label came, so the example has the declared implicit label."""

    place: Place
    label: LabelValue
    label_time: float
    implicit: bool


class LearningStep(msgspec.Struct, frozen=True):
    """The oldest kept release that has learned the example.

    `how`: in which update or run; `first`: True if no older release learned the example, False if an older release,
    since removed, may have learned it.
    """

    version: int
    created: float
    reason: str
    how: str
    first: bool


class DeadLetterStep(msgspec.Struct, frozen=True):
    """A dead letter of the event, its prediction or its label. `letter`, `source`: topic/partition/offset."""

    letter: str
    source: str
    reason: str
    detail: str


class EventHistory(msgspec.Struct, frozen=True, kw_only=True):
    """All steps of one event that the topics hold.

    `taught`: the release that learned the example; `untaught`: reason why none is known, empty if one is or if there is
    no example; `refused`: dead letters.
    """

    id: str
    event: EventStep | None = None
    prediction: PredictionStep | None = None
    release: ReleaseStep | None = None
    labels: list[LabelStep] = []
    example: ExampleStep | None = None
    taught: LearningStep | None = None
    untaught: str = ""
    refused: list[DeadLetterStep] = []

    @property
    def empty(self) -> bool:
        """True if no topic holds a record of the event."""
        return not (self.event or self.prediction or self.labels or self.example or self.refused)


class JoinerProgress(msgspec.Struct, frozen=True):
    """Committed progress of the joiner in one partition.

    `labels`: offset of the next label to read; `watermark`: event time, unix seconds, up to which windows have closed.
    """

    labels: int = 0
    watermark: float = -math.inf


def label_verdict(
    offset: int,
    value_and_time: tuple[LabelValue, float],
    closes: float | None,
    wins: Winner,
    example: Example | None,
    progress: JoinerProgress,
) -> tuple[bool | None, str]:
    """Return whether the label at `offset` counts (None: undecided) and the reason in words.

    `closes`: time at which the window of the event closes, unix seconds; None if there is no prediction yet. `example`:
    the example of the event, if the join has emitted one.
    """
    if offset >= progress.labels:
        return None, "waits for the joiner"
    if closes is None:
        return None, "waits for the prediction"
    if value_and_time[1] >= closes:
        return False, "does not count: it became known after the window had closed"
    if example is None and progress.watermark < closes and wins is not Winner.FIRST:
        return None, "waits for the window to close"
    if example is None:
        return None, "was written after the window had closed, or the example was removed"
    if example.implicit:
        return False, "does not count: it was written after the window had closed"
    if wins is Winner.MEAN:
        return True, "counts: the example has the mean of all labels"
    if value_and_time == (example.label, example.label_time):
        return True, f"counts: wins={wins} selects it"
    return False, f"does not count: wins={wins} selects another label"


def learning_step(manifests: Iterable[Manifest], place: Place) -> LearningStep | None:
    """Return the oldest of these releases that has learned the example at `place`; None if none has."""
    kept = {manifest.version: manifest for manifest in manifests}
    for version, manifest in sorted(kept.items()):
        if any(_holds(part, place) for part in manifest.ranges):
            how, in_last_update = _learning(manifest, place)
            first = in_last_update or manifest.parent == 0 or manifest.parent in kept
            return LearningStep(version, manifest.created, manifest.reason, how, first)
    return None


def _learning(manifest: Manifest, place: Place) -> tuple[str, bool]:
    """Return how a release learned the example at `place`, in words, and True if its last online update learned it.

    The last update of the chain made this release, so no older release has learned an example of that update.
    """
    updates = manifest.updates
    if updates is None:
        plan = fact(manifest.facts, "plan", Training) or Training()
        condition = "" if repeats(plan) else f", if {type(plan.data).__name__}() selected it (not recorded)"
        return f"in a run{condition}", False
    number = _update(updates, place)
    if number is None:
        return "from the replay buffer with which its chain of updates began", False
    count = len(updates.learned)
    return f"in update {number + 1} of {count} of its chain", number == count - 1


def _update(updates: Updates, place: Place) -> int | None:
    """Return the index of the update in a chain that learned the example; None if the replay buffer held it before."""
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
