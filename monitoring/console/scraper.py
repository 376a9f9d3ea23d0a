"""The thread that reads the /metrics of the roles for the section `costs`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tailrace.monitoring.console.costs import cost_section
from tailrace.monitoring.console.sections import PageSections
from tailrace.monitoring.telemetry.scrape import fetch_metrics

_INTERVAL_S, _TIMEOUT_S = 2.0, 1.0


class MetricsScraper:
    """Puts the section `costs` until it is closed. `urls` gives the address of each role's /metrics."""

    def __init__(self, sections: PageSections, urls: Callable[[], Mapping[str, str]]) -> None:
        self._sections, self._urls = sections, urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-scraper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._sections.put({"costs": self._scrape()})
            self._stop.wait(_INTERVAL_S)

    def _scrape(self) -> dict[str, Any]:
        texts = {role: text for role, url in self._urls().items() if (text := _body(url)) is not None}
        try:
            section = cost_section(texts.values())
        except ValueError:  # another program listens on that port
            section = cost_section(())
        return section | {"roles": sorted(texts)}


def _body(url: str) -> str | None:
    """The text at an address; None if nothing answers."""
    try:
        return fetch_metrics(url, _TIMEOUT_S)
    except (OSError, ValueError):
        return None
