"""The newest content of each section of the page, encoded as JSON; written by some threads and read by others."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec


class EncodedSection(NamedTuple):
    """A section as JSON. `number` counts the changes of all sections and only grows."""

    number: int
    json: bytes


class PageSections:
    """Holds the newest content of each section. A slow reader misses older contents, and nothing queues up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sections: dict[str, EncodedSection] = {}
        self._number = 0
        self.viewers = 0
        """Number of open pages; the follower updates less often while it is 0."""

    def put(self, sections: Mapping[str, Any]) -> None:
        """Replace sections by name; content that is unchanged keeps its number."""
        encoded = {name: msgspec.json.encode(value) for name, value in sections.items()}
        with self._lock:
            for name, json in encoded.items():
                before = self._sections.get(name)
                if before is None or before.json != json:
                    self._number += 1
                    self._sections[name] = EncodedSection(self._number, json)

    def since(self, number: int = 0) -> dict[str, EncodedSection]:
        """Return the sections that changed after the change with this number."""
        with self._lock:
            return {name: section for name, section in self._sections.items() if section.number > number}
