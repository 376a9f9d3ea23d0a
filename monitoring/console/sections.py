"""What the page shows now: one encoded section a name. Written by one thread, read by another."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec


class Section(NamedTuple):
    """A part of the page as JSON; `number` grows with each change of the board."""

    number: int
    json: bytes


class Board:
    """The newest of each section: a reader that is slow misses what was in between, and nothing piles up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sections: dict[str, Section] = {}
        self._number = 0
        self.viewers = 0
        """How many look on: nobody need be told often what nobody sees."""

    def put(self, sections: Mapping[str, Any]) -> None:
        """Show these; what is as it was is no news."""
        encoded = {name: msgspec.json.encode(value) for name, value in sections.items()}
        with self._lock:
            for name, json in encoded.items():
                before = self._sections.get(name)
                if before is None or before.json != json:
                    self._number += 1
                    self._sections[name] = Section(self._number, json)

    def since(self, number: int = 0) -> dict[str, Section]:
        """The sections that have changed since the board had this number."""
        with self._lock:
            return {name: section for name, section in self._sections.items() if section.number > number}
