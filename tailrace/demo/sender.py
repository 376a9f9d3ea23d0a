"""The demo's producer: replays departures and landings into the events and labels topics, no faster than they are
used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tailrace.datafiles.read import replay, rows
from tailrace.declaration.pipeline import Pipeline
from tailrace.demo.flights import COLUMNS, DATA
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import Out

_BURST_S = 0.02
_MOST_UNPREDICTED = 4_000
_MOST_UNLEARNED = 1_000  # a day of them: what is predicted further ahead is predicted by what knows too little


class Sender:
    """Sends in a thread, events at an even rate and labels when the replayed clock reaches them.

    `rate`: events a second; `predicted()` and `learned()`: how many events have been predicted, how many labels
    learned.
    """

    def __init__(
        self, log: Log, pipeline: Pipeline, rate: float, *, predicted: Callable[[], int], learned: Callable[[], int]
    ) -> None:
        self._log, self._pipeline, self._rate = log, pipeline, rate
        self._predicted, self._learned = predicted, learned
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)
        self.events = self.labels = 0
        self.clock = 0.0
        self.seconds = 0.0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Stop before the end of the data."""
        self._stop.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        """Whether everything was sent."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            writer = self._log.writer()
            try:
                burst: list[Out] = []
                size = max(1, int(self._rate * _BURST_S))
                for moment in replay(rows(DATA), self._pipeline, COLUMNS):
                    burst.append(moment.out)
                    self.events += moment.kind == "event"
                    self.labels += moment.kind == "label"
                    self.clock = moment.time
                    if len(burst) >= size and moment.kind == "event":
                        writer.write(burst)
                        burst = []
                        if not self._wait(started):
                            return
                writer.write(burst)
                writer.flush()
            finally:
                writer.close()
        except BaseException as error:
            self.failure = error
        finally:
            self.seconds = time.monotonic() - started

    def _wait(self, started: float) -> bool:
        """Keep to the rate, and to what the others can follow; False when told to stop."""
        while (due := started + self.events / self._rate - time.monotonic()) > 0 or self._ahead():
            if self._stop.wait(min(max(due, _BURST_S / 4), _BURST_S)):
                return False
        return not self._stop.is_set()

    def _ahead(self) -> bool:
        unpredicted = self.events - self._predicted()
        return unpredicted > _MOST_UNPREDICTED or self.labels - self._learned() > _MOST_UNLEARNED
