"""Asks the roles for their metrics now and then, for what they cost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tailrace.monitoring.console.costs import costs
from tailrace.monitoring.console.sections import Board
from tailrace.monitoring.telemetry.scrape import fetched

_EVERY_S, _PATIENCE_S = 2.0, 1.0


class Scraper:
    """Puts the section `costs` on the board, in a thread, until closed. `urls`: role -> its /metrics."""

    def __init__(self, board: Board, urls: Callable[[], Mapping[str, str]]) -> None:
        self._board, self._urls = board, urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrape", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._board.put({"costs": self._look()})
            self._stop.wait(_EVERY_S)

    def _look(self) -> dict[str, Any]:
        texts = {role: text for role, url in self._urls().items() if (text := _body(url)) is not None}
        try:
            found = costs(texts.values())
        except ValueError:  # no metrics: something else listens there
            found = costs(())
        return found | {"roles": sorted(texts)}


def _body(url: str) -> str | None:
    """What is there; None when nobody answers."""
    try:
        return fetched(url, _PATIENCE_S)
    except (OSError, ValueError):
        return None
