"""Deprecated alias of `tailrace.contrib.faust`; removed in 1.0."""

import warnings

from tailrace.contrib.faust import attach

__all__ = ["attach"]

warnings.warn(
    "tailrace.faust has moved: write `from tailrace.contrib.faust import attach`", DeprecationWarning, stacklevel=2
)
