"""Prediction task (pure): binary, multi-class, multi-label or regression, and the conversion of labels into targets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from tailrace.errors import DeclarationError

ClassValue: TypeAlias = bool | int | float | str
LabelValue: TypeAlias = ClassValue | list[ClassValue] | dict[str, bool]
"""Value of a label record: a class or a number. For a multi-label task: a list of the labels that apply, or a flag for
each label."""
Target: TypeAlias = float | tuple[float, ...]
"""Training target of one example: a number, or for a multi-label task 0.0 or 1.0 for each label, in declared order."""

LARGEST = 1e15  # of a regression label: squared errors of larger values overflow float32, in which models are trained
_BITS = frozenset((0, 1))
_TRUE = frozenset(("1", "true", "yes", "t", "y"))
_FALSE = frozenset(("0", "false", "no", "f", "n", "-1"))
_WHOLE = re.compile(r"(-?\d+)\.0+")


class Kind(StrEnum):
    """Kind of a prediction task."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"


class Task(msgspec.Struct, frozen=True):
    """Prediction task: its kind and, for multi-class and multi-label tasks, the classes in their fixed order."""

    kind: Kind
    classes: tuple[ClassValue, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of model outputs per row: one logit per class or label, one logit (binary), or one value."""
        return len(self.classes) if self.kind in (Kind.MULTICLASS, Kind.MULTILABEL) else 1

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one target: () for a number, (labels,) for a multi-label task."""
        return (len(self.classes),) if self.kind is Kind.MULTILABEL else ()

    def target(self, label: LabelValue) -> Target:
        """Convert a label into its training target: 0 or 1, the class index, the value, or a 0 or 1 for each label.

        Raises ValueError for a label that does not fit the task.
        """
        if self.kind is Kind.MULTILABEL:
            applying = self._applying(label)
            return tuple(1.0 if index in applying else 0.0 for index in range(len(self.classes)))
        return self.number(label)

    def number(self, label: LabelValue) -> float:
        """Convert a label into the number by which labels of one event are compared: its target; 0.0 for a multi-label
        task, whose labels have no order.

        Raises ValueError for a label that does not fit the task.
        """
        if self.kind is Kind.MULTILABEL:
            self._applying(label)
            return 0.0
        if isinstance(label, list | dict):
            raise ValueError(f"label {label!r} has several values, and a {self.kind} label has one")
        if self.kind is Kind.BINARY:
            return _flag(label)
        if self.kind is Kind.MULTICLASS:
            return float(_index(self._indices(), label))
        value = float(label)
        if not abs(value) <= LARGEST:
            raise ValueError(f"label {label!r} is not a number from -{LARGEST:g} to {LARGEST:g}")
        return value

    def _applying(self, label: LabelValue) -> set[int]:
        """Indices of the labels that apply."""
        indices = self._indices()
        if isinstance(label, dict):
            return {index for name, applies in label.items() for index in [_index(indices, name)] if applies}
        if isinstance(label, list):
            return {_index(indices, name) for name in label}
        raise ValueError(f"label {label!r} is neither a list of the classes that apply nor true or false by class")

    def _indices(self) -> dict[str, int]:
        return {str(name): index for index, name in enumerate(self.classes)}


def base_rate_scores(task: Task, base_rate: float | Sequence[float] | None) -> list[float]:
    """Scores of release 0: the declared base rate; without one, even odds (regression: 0.0). Raise DeclarationError."""
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


def _flag(label: ClassValue) -> float:
    if label in _BITS:
        return float(label)
    text = _without_decimals(str(label).strip().lower())
    if text in _TRUE:
        return 1.0
    if text in _FALSE:
        return 0.0
    raise ValueError(f"label {label!r} is neither true nor false")


def _index(indices: Mapping[str, int], label: ClassValue) -> int:
    index = indices.get(str(label))
    if index is None:
        plain = {_without_decimals(name): i for name, i in indices.items()}
        index = plain.get(_without_decimals(str(label)))
    if index is None:
        raise ValueError(f"label {label!r} is not one of the {len(indices)} declared classes")
    return index


def _without_decimals(text: str) -> str:
    """Text of a whole number without its decimals: a column of whole numbers with gaps is written as 1.0, 2.0."""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text
