"""The training process of the tests of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import retrain_pipeline as tiny

from tailrace.retrain.worker.client import Trainer


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    """A running training process, which the tests of a module share."""
    one = Trainer(tiny.LOADER, "support.retrain_pipeline:pipeline")
    one.start()
    yield one
    one.close()
