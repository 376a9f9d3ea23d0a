"""Labels as training targets: what each kind of task takes for what, and what it refuses."""

from __future__ import annotations

import pytest

from tailrace.declaration.task import Kind, LabelValue, Target, Task

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
        (SEVERAL, [], (0.0, 0.0, 0.0)),
        (SEVERAL, ["a", "3.0", "a"], (1.0, 0.0, 1.0)),
        (SEVERAL, {"b": True, "3": False}, (0.0, 1.0, 0.0)),
    ],
)
def test_a_label_has_a_target(task: Task, label: LabelValue, target: Target) -> None:
    """Whole numbers count the same with and without the ".0" that columns with gaps have; texts that differ stay
    apart."""
    assert task.target(label) == target


@pytest.mark.parametrize(
    ("task", "label", "said"),
    [
        (BINARY, 2.0, "neither true nor false"),
        (NUMBERED, 1.5, "not one of the 3 declared classes"),
        (SEVERAL, ["a", "c"], "not one of the 3 declared classes"),
        (SEVERAL, {"c": False}, "not one of the 3 declared classes"),
        (SEVERAL, "a", "neither a list"),
        *((task, label, "has several values") for task in (BINARY, NUMBERED, VALUE) for label in ([1], {"1": True})),
        *((VALUE, label, "not a number from -1e\\+15 to 1e\\+15") for label in (1.1e15, -1.7e308, "nan", "inf")),
    ],
)
def test_what_is_no_label_of_the_task_is_refused(task: Task, label: LabelValue, said: str) -> None:
    """Also a value whose squared error float32 could not hold: it would spoil every run while it is in the window."""
    with pytest.raises(ValueError, match=said):
        task.target(label)


@pytest.mark.parametrize("labels", [1, 25, 40, 200])
def test_a_multilabel_target_has_a_flag_per_label(labels: int) -> None:
    """Any number of labels gives one flag each, in declared order, and no number that could be compared."""
    task = Task(Kind.MULTILABEL, tuple(f"label {n}" for n in range(labels)))
    target = task.target([f"label {n}" for n in range(0, labels, 3)])
    assert target == tuple(float(n % 3 == 0) for n in range(labels))
    assert (task.target_shape, task.outputs, task.number([])) == ((labels,), labels, 0.0)
