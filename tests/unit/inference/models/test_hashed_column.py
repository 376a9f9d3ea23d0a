"""Categories become bucket indices."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tailrace.inference.models import hashed_column
from tailrace.inference.models.hashed_column import HashedColumn


def test_buckets_are_the_same_in_every_process() -> None:
    """The hash does not depend on the process's hash seed."""
    module = "tailrace.inference.models.hashed_column"
    program = f"from {module} import HashedColumn as H; print(H('real', 1024).encode([7])[0])"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    expected = HashedColumn("carrier", 1024).encode([SimpleNamespace(carrier=7)])[0]
    assert {int(text) for text in found} == {expected}


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless new values do not fill memory, and the buckets stay what they were."""
    monkeypatch.setattr(hashed_column, "CACHED_VALUES", 10)
    hashed = HashedColumn("carrier", 64)
    first = hashed.encode([SimpleNamespace(carrier=str(i)) for i in range(50)])
    again = hashed.encode([SimpleNamespace(carrier=str(i)) for i in range(5)])
    assert first[:5].tolist() == again.tolist()
    assert len(hashed._cache) == 6
