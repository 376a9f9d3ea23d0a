"""Redaction of fields by name, wherever they stand in a record (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

HIDDEN = "•••"


class Redaction:
    """Hides the values of the fields with these names. The names `id` and `label` also hide event ids and labels."""

    def __init__(self, fields: Iterable[str] = ()) -> None:
        self._fields = frozenset(fields)

    def __bool__(self) -> bool:
        """True if any field is hidden."""
        return bool(self._fields)

    def field(self, name: str, value: Any) -> Any:
        """Return the value of one field, or `HIDDEN`."""
        return HIDDEN if name in self._fields else value

    def decoded(self, value: Any) -> Any:
        """Return a copy of decoded JSON in which the fields are hidden at every depth."""
        if not self._fields:
            return value
        if isinstance(value, dict):
            return {name: HIDDEN if name in self._fields else self.decoded(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.decoded(item) for item in value]
        return value
