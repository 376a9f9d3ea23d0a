"""The label of a pipeline (pure): its kind, how long to wait for it, and which of several counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal

import msgspec

from tailrace.declaration.durations import seconds
from tailrace.declaration.task import ClassValue, Kind, LabelValue, Task, base_rate_scores
from tailrace.errors import DeclarationError

LABEL_FIELDS = ("id", "label", "time")
"""Fields of a label record, in the names that they have without `Label(fields=...)`."""


class Winner(StrEnum):
    """Which of several labels of one event counts. FIRST is known at once; the others when the window closes."""

    FIRST = "first"
    LAST = "last"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"


class JoinPolicy(msgspec.Struct, frozen=True):
    """How long to wait for a label (seconds of event time), which one wins, and what a missing one means.

    `implicit` is the label given to events whose label never came; None: such events give no example.
    """

    wait: float
    wins: Winner = Winner.FIRST
    implicit: LabelValue | None = None

    def __post_init__(self) -> None:
        if not 0 < self.wait < 1e10:
            raise DeclarationError(f"wait is {self.wait} s: it must be above 0 and below 300 years")


class Label(msgspec.Struct, frozen=True):
    """The feedback: what it is called, what kind it is, how long to wait for it, which one wins, what a missing one
    means.

    `classes` names those of a multi-class label, or the labels of a multi-label one, of which any may apply to an
    event: its label record holds a list of those that do, or {class: true or false}; `missing=[]` says that none does.
    `fields` names the label record's own fields where they are not id, label and time. `rekey`: the label topic is
    not keyed by the event id; the joiner then re-keys it through `<name>.labels-by-id`. `base_rate` is what release 0
    predicts, the model of a pipeline that has learned nothing yet: the share of positives, of each class, or the mean
    value. With `wins`="max" or "min" the number counts that the task makes of a label: 0 or 1, or the value; a mean is
    for values. Raises DeclarationError.
    """

    name: str
    kind: Literal["binary", "multiclass", "multilabel", "regression"] = "binary"
    classes: Sequence[ClassValue] = ()
    wait: str | float = "1d"
    wins: Literal["first", "last", "max", "min", "mean"] = "first"
    missing: LabelValue | None = None
    base_rate: float | Sequence[float] | None = None
    fields: Mapping[str, str] = {}
    rekey: bool = False

    def __post_init__(self) -> None:
        _check_word("kind", self.kind, Kind)
        _check_word("wins", self.wins, Winner)
        fitting = _WINNERS[Kind(self.kind)]
        if self.wins not in fitting:
            raise DeclarationError(
                f"Label(wins={self.wins!r}) does not fit a {self.kind} label: write {', '.join(fitting)}"
            )
        unknown = set(self.fields) - set(LABEL_FIELDS)
        if unknown:
            raise DeclarationError(
                f"fields={dict(self.fields)}: a label record has id, label and time, not {sorted(unknown)}"
            )
        base_rate_scores(self.task(), self.base_rate)
        if self.missing is not None:
            try:
                self.task().target(self.missing)
            except ValueError as error:
                raise DeclarationError(f"Label(missing={self.missing!r}) can be no label: {error}") from None

    def task(self) -> Task:
        """The model's task."""
        if self.kind == "multiclass" and len(set(map(str, self.classes))) < 2:
            raise DeclarationError(f"label {self.name!r} is multiclass: name its classes, such as classes=[1, 2, 3]")
        if self.kind == "multilabel" and not 1 <= len(set(map(str, self.classes))) == len(self.classes):
            raise DeclarationError(f"label {self.name!r} is multilabel: name its labels, one or more different ones")
        return Task(Kind(self.kind), tuple(self.classes))

    def policy(self) -> JoinPolicy:
        """The join's policy."""
        return JoinPolicy(wait=seconds(self.wait), wins=Winner(self.wins), implicit=self.missing)


_WINNERS = {
    Kind.BINARY: ("first", "last", "max", "min"),
    Kind.MULTICLASS: ("first", "last"),
    Kind.MULTILABEL: ("first", "last"),
    Kind.REGRESSION: tuple(Winner),
}


def _check_word(field: str, given: str, words: Iterable[str]) -> None:
    if given not in tuple(words):
        raise DeclarationError(f"Label({field}={given!r}): write {', '.join(words)}")
