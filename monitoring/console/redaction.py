"""What nobody is shown (pure): fields by their names, wherever they stand in a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

HIDDEN = "•••"


class Mask:
    """Hides the values of these fields. `id` and `label` hide those of events too."""

    def __init__(self, fields: Iterable[str] = ()) -> None:
        self._fields = frozenset(fields)

    def __bool__(self) -> bool:
        return bool(self._fields)

    def named(self, name: str, value: Any) -> Any:
        """A value of this name."""
        return HIDDEN if name in self._fields else value

    def value(self, value: Any) -> Any:
        """Decoded JSON."""
        if not self._fields:
            return value
        if isinstance(value, dict):
            return {name: HIDDEN if name in self._fields else self.value(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value
