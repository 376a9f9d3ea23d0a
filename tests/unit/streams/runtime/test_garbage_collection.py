"""The garbage collector ignores the objects of the start-up."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tailrace.streams.runtime.garbage_collection import freeze_garbage_collector


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_objects_of_the_start_up_are_not_visited() -> None:
    """After the call a collection does not visit an older object, and visits a newer one."""
    older: list[object] = [[]]
    freeze_garbage_collector()
    newer: list[object] = [[]]
    visited = {id(tracked) for tracked in gc.get_objects()}
    assert (id(older) in visited, id(newer) in visited) == (False, True)
