"""Labels as training targets: what each kind of task takes for what, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailrace.declaration.task import Kind, LabelValue, Task
from tailrace.inference.models.multilabel import MOST, packed, unpacked, unpacked_tensor

SEVERAL = Task(Kind.MULTILABEL, ("a", "b", 3))
BINARY, VALUE = Task(Kind.BINARY), Task(Kind.REGRESSION)
NUMBERED = Task(Kind.MULTICLASS, (1, 2, 3))
VERSIONS = Task(Kind.MULTICLASS, ("1", "1.0", "1.5"))


@pytest.mark.parametrize(
    ("task", "label", "target"),
    [
        *((BINARY, label, 1.0) for label in (True, 1, 1.0, "1", "1.0", " Yes ")),
        *((BINARY, label, 0.0) for label in (False, 0, 0.0, -1, -1.0, "-1.0", "no")),
        *((NUMBERED, label, 1.0) for label in (2, 2.0, "2", "2.0")),
        (Task(Kind.MULTICLASS, (1.0, 2.0)), 2, 1.0),
        *((VERSIONS, label, index) for index, label in enumerate(("1", "1.0", "1.5"))),
        *((VALUE, label, 2.5) for label in (2.5, "2.5")),
        (VALUE, -1e15, -1e15),
        (SEVERAL, [], 0.0),
        (SEVERAL, ["a", "3.0", "a"], 5.0),
        (SEVERAL, {"b": True, "3": False}, 2.0),
    ],
)
def test_a_label_has_a_target(task: Task, label: LabelValue, target: float) -> None:
    """Whole numbers count the same with and without the ".0" that columns with gaps have; texts that differ stay
    apart."""
    assert task.target(label) == target


@pytest.mark.parametrize(
    ("task", "label", "said"),
    [
        (BINARY, 2.0, "neither true nor false"),
        (NUMBERED, 1.5, "none of the 3 declared classes"),
        (SEVERAL, ["a", "c"], "none of the 3 declared classes"),
        (SEVERAL, {"c": False}, "none of the 3 declared classes"),
        (SEVERAL, "a", "neither a list"),
        *((task, label, "is several") for task in (BINARY, NUMBERED, VALUE) for label in ([1], {"1": True})),
        *((VALUE, label, "no number from -1e\\+15 to 1e\\+15") for label in (1.1e15, -1.7e308, "nan", "inf")),
    ],
)
def test_what_is_no_label_of_the_task_is_refused(task: Task, label: LabelValue, said: str) -> None:
    """Also a value whose squared error float32 could not hold: it would spoil every run while it is in the window."""
    with pytest.raises(ValueError, match=said):
        task.target(label)


@given(st.lists(st.sets(st.integers(0, MOST - 1)), max_size=5))
def test_several_labels_fit_into_one_number(applying: list[set[int]]) -> None:
    """What was packed comes out again, in NumPy and in torch, up to the most labels there may be."""
    targets = np.array([packed(some) for some in applying], np.float32)
    expected = [[float(label in some) for label in range(MOST)] for some in applying]
    assert unpacked(targets, MOST).tolist() == expected
    assert unpacked_tensor(torch.from_numpy(targets), MOST).tolist() == expected
