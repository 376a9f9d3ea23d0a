"""Declaration of the label (pure): its kind, how long the join waits for it, and which of several labels counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal

import msgspec

from tailrace.declaration.documentation import with_field_docs
from tailrace.declaration.durations import seconds
from tailrace.declaration.task import ClassValue, Kind, LabelValue, Task, base_rate_scores
from tailrace.errors import DeclarationError


class Winner(StrEnum):
    """Rule that selects one of several labels of an event. FIRST decides at once, the others when the wait ends."""

    FIRST = "first"
    LAST = "last"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"


@with_field_docs
class JoinPolicy(msgspec.Struct, frozen=True):
    """Rules of the join."""

    wait: float
    """Seconds of event time during which a label is accepted, above 0 and below 1e10."""
    wins: Winner = Winner.FIRST
    """Which of several labels counts."""
    implicit: LabelValue | None = None
    """Label of an event whose label never arrived; None: such events give no example."""

    def __post_init__(self) -> None:
        if not 0 < self.wait < 1e10:
            raise DeclarationError(f"wait is {self.wait} s: it must be above 0 and below 300 years")


@with_field_docs
class Label(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The feedback that the model learns to predict. Raises DeclarationError."""

    name: str
    """Name of the label, for people."""
    kind: Literal["binary", "multiclass", "multilabel", "regression"] = "binary"
    """Kind of task."""
    classes: Sequence[ClassValue] = ()
    """Classes of a multi-class label. For a multi-label one, the labels, any number of which may apply to an event: its
    label record holds a list of those that apply, or {class: true or false}."""
    wait: str | float = "1d"
    """Event time during which a label is accepted, such as "12h", or a number of seconds."""
    wins: Literal["first", "last", "max", "min", "mean"] = "first"
    """Which of several labels of an event counts. "max" and "min" compare the targets that the task makes of them (0 or
    1, or the value); "mean" is for regression."""
    missing: LabelValue | None = None
    """Label of an event whose label never arrived; None: such an event gives no example. For a multi-label task, []
    means that none applies."""
    base_rate: float | Sequence[float] | None = None
    """Prediction of release 0, the model of a pipeline that has not learned yet: the share of positives, of each class,
    or the mean value. None: even odds, or 0."""
    fields: Mapping[str, str] = {}
    """Names of the fields of a label record that are not called id, label and time: {"id": "flight_id"}. An event with
    several keys has labels with these fields instead of id."""
    rekey: bool = False
    """Whether the label topic is keyed by something else than the event id. The joiner then re-keys it through
    `<name>.labels-by-id`."""

    def __post_init__(self) -> None:
        _check_word("kind", self.kind, Kind)
        _check_word("wins", self.wins, Winner)
        allowed = _WINNERS[Kind(self.kind)]
        if self.wins not in allowed:
            raise DeclarationError(
                f"Label(wins={self.wins!r}) does not fit a {self.kind} label: write {', '.join(allowed)}"
            )
        base_rate_scores(self.task(), self.base_rate)
        if self.missing is not None:
            try:
                self.task().target(self.missing)
            except ValueError as error:
                raise DeclarationError(f"Label(missing={self.missing!r}) is not a valid label: {error}") from None

    def task(self) -> Task:
        """The task of the model."""
        if self.kind == "multiclass" and len(set(map(str, self.classes))) < 2:
            raise DeclarationError(f"label {self.name!r} is multiclass: name its classes, such as classes=[1, 2, 3]")
        if self.kind == "multilabel" and not 1 <= len(set(map(str, self.classes))) == len(self.classes):
            raise DeclarationError(f"label {self.name!r} is multilabel: name its labels, one or more different ones")
        return Task(Kind(self.kind), tuple(self.classes))

    def policy(self) -> JoinPolicy:
        """Return the rules by which the join matches labels to predictions."""
        return JoinPolicy(wait=seconds(self.wait), wins=Winner(self.wins), implicit=self.missing)


def check_label_fields(fields: Mapping[str, str], ids: Iterable[str]) -> None:
    """Raise DeclarationError for a name that label records with these id fields do not have, or have twice."""
    names = (*ids, "label", "time")
    if len(set(names)) < len(names):
        raise DeclarationError(f"a key cannot be named label or time, as a field of label records is: {list(ids)}")
    if unknown := set(fields) - set(names):
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        raise DeclarationError(f"fields={dict(fields)}: a label record has {listed}, not {sorted(unknown)}")


_WINNERS = {
    Kind.BINARY: ("first", "last", "max", "min"),
    Kind.MULTICLASS: ("first", "last"),
    Kind.MULTILABEL: ("first", "last"),
    Kind.REGRESSION: tuple(Winner),
}


def _check_word(field: str, value: str, allowed: Iterable[str]) -> None:
    if value not in tuple(allowed):
        raise DeclarationError(f"Label({field}={value!r}): write {', '.join(allowed)}")
