"""Deprecated alias of `tailrace.contrib.faust`; it will be removed in 1.0."""

from tailrace.contrib.faust import attach

__all__ = ["attach"]
