"""What torchrun tells the processes that it starts, through their environment (pure, but for reading that)."""

from __future__ import annotations

import os


def given_rank() -> int:
    """This process's rank; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def given_ranks() -> int:
    """How many ranks there are; 0 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 0))
