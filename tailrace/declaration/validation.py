"""Checks of declared values (pure)."""

from __future__ import annotations

import msgspec

from tailrace.errors import DeclarationError


def check_field(declared: msgspec.Struct, name: str, valid: bool, requirement: str) -> None:
    """Raise DeclarationError unless `valid`; the message names the field, its value and the requirement."""
    if not valid:
        declaration = f"{type(declared).__name__}({name}={getattr(declared, name)!r})"
        raise DeclarationError(f"{declaration}: {name} must be {requirement}")
