"""Environment variables that torchrun sets for the processes that it starts (pure, except for reading them)."""

from __future__ import annotations

import os


def given_rank() -> int:
    """Rank of this process; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def given_ranks() -> int:
    """Number of ranks; 0 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 0))
