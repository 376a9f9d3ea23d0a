"""Checks of declared values (pure)."""

from __future__ import annotations

import msgspec

from tailrace.errors import DeclarationError


def check_field(declared: msgspec.Struct, name: str, fine: bool, range_: str) -> None:
    """Raises DeclarationError, naming the field, what it is and what it must be, unless that is fine."""
    if not fine:
        told = f"{type(declared).__name__}({name}={getattr(declared, name)!r})"
        raise DeclarationError(f"{told}: {name} must be {range_}")
