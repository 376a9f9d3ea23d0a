"""Fixtures of the tests of serving: both ends of a models topic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.releases import Ends


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    both = Ends(tmp_path / "log.db")
    yield both
    both.close()
