"""What a model is asked for (pure): binary, multi-class, multi-label or regression; how a label becomes a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from tailrace.errors import DeclarationError

ClassValue: TypeAlias = bool | int | float | str
LabelValue: TypeAlias = ClassValue | list[ClassValue] | dict[str, bool]
"""The value of a label record: a class or a number; for several labels, those that apply or a flag for each."""

LARGEST = 1e15  # of a value: training is done in float32, whose range the squares of larger errors would leave
_BITS = frozenset((0, 1))
_TRUE = frozenset(("1", "true", "yes", "t", "y"))
_FALSE = frozenset(("0", "false", "no", "f", "n", "-1"))
_WHOLE = re.compile(r"(-?\d+)\.0+")


class Kind(StrEnum):
    """The kind of question."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"


class Task(msgspec.Struct, frozen=True):
    """The question: its kind and, for multi-class and multi-label, the classes in their fixed order."""

    kind: Kind
    classes: tuple[ClassValue, ...] = ()

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for a row: one logit, one logit a class, or the value."""
        return len(self.classes) if self.kind in (Kind.MULTICLASS, Kind.MULTILABEL) else 1

    def target(self, label: LabelValue) -> float:
        """The training target: 0/1, the class index, the classes that apply (see `models.multilabel`), or the value.

        Raises ValueError for a label that the task does not know.
        """
        if self.kind is Kind.MULTILABEL:
            return float(sum(1 << index for index in self._applying(label)))
        if isinstance(label, list | dict):
            raise ValueError(f"label {label!r} is several, and a {self.kind} label is one")
        if self.kind is Kind.BINARY:
            if label in _BITS:
                return float(label)
            text = _plain(str(label).strip().lower())
            if text in _TRUE:
                return 1.0
            if text in _FALSE:
                return 0.0
            raise ValueError(f"label {label!r} is neither true nor false")
        if self.kind is Kind.MULTICLASS:
            return float(self._index(label))
        value = float(label)
        if not abs(value) <= LARGEST:
            raise ValueError(f"label {label!r} is no number from -{LARGEST:g} to {LARGEST:g}")
        return value

    def _applying(self, label: LabelValue) -> set[int]:
        if isinstance(label, dict):
            return {index for name, applies in label.items() for index in [self._index(name)] if applies}
        if isinstance(label, list):
            return set(map(self._index, label))
        raise ValueError(f"label {label!r} is neither a list of the classes that apply nor true or false by class")

    def _index(self, label: ClassValue) -> int:
        indices = {str(c): i for i, c in enumerate(self.classes)}
        index = indices.get(str(label))
        if index is None:
            index = {_plain(known): i for known, i in indices.items()}.get(_plain(str(label)))
        if index is None:
            raise ValueError(f"label {label!r} is none of the {len(self.classes)} declared classes")
        return index


def base_rate_scores(task: Task, base_rate: float | Sequence[float] | None) -> list[float]:
    """What release 0 predicts: the declared base rate, else even odds (0.0 for regression). Raises DeclarationError."""
    if base_rate is None:
        if task.kind is Kind.REGRESSION:
            return [0.0]
        return [1.0 / task.outputs if task.kind is Kind.MULTICLASS else 0.5] * task.outputs
    rates = [float(base_rate)] if isinstance(base_rate, int | float) else [float(rate) for rate in base_rate]
    if len(rates) != task.outputs:
        raise DeclarationError(f"base_rate has {len(rates)} values: a {task.kind} label needs {task.outputs}")
    if task.kind is not Kind.REGRESSION and not all(0.0 <= rate <= 1.0 for rate in rates):
        raise DeclarationError(f"base_rate {rates} must lie between 0 and 1")
    return rates


def _plain(text: str) -> str:
    """1.0 as 1: so a column of whole numbers is written where it has gaps."""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text
