"""Environment of a child process that is not measured for coverage."""

from __future__ import annotations

import os


def unmeasured() -> dict[str, str]:
    """Return this process's environment without the variables that make coverage start in a child."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
