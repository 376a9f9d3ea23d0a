"""Producer of the demo: replays departures as events and landings as labels, at the pace of the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import takewhile

from tailrace.datafiles.read import Moment, replay, rows
from tailrace.declaration.pipeline import Pipeline
from tailrace.demo.flights import COLUMNS, DATA
from tailrace.streams.log.base import Log
from tailrace.streams.log.records import Out

_BURST_S = 0.02  # seconds of events that are written together
_MOST_UNPREDICTED = 4_000  # the sender waits while more events than this have no prediction
_MOST_UNLEARNED = 1_000  # about a day of labels; a longer lead would have events scored by an outdated model


WEEKS = 12
"""Weeks of departures in the data."""


def departures(pipeline: Pipeline, weeks: int = WEEKS) -> Iterator[Moment]:
    """Yield the events and labels of the first `weeks` weeks, in the order of their time."""
    moments = replay(rows(DATA), pipeline, COLUMNS)
    first = next(moments)
    yield first
    end = first.time + weeks * 7 * 86_400.0
    yield from moments if weeks >= WEEKS else takewhile(lambda moment: moment.time < end, moments)


class Sender:
    """Thread that writes events at an even rate, and labels when the replay clock reaches their time.

    `rate`: events a second; `weeks`: weeks of departures to send; `predicted()`: number of predictions made;
    `learned()`: number of labels learned. The attributes `events` and `labels` count the records sent, `clock` is the
    time of the newest one (unix seconds), and `failure` is the exception that ended the thread.
    """

    def __init__(
        self,
        log: Log,
        pipeline: Pipeline,
        rate: float,
        *,
        predicted: Callable[[], int],
        learned: Callable[[], int],
        weeks: int = WEEKS,
    ) -> None:
        self._log, self._pipeline, self._rate, self._weeks = log, pipeline, rate, weeks
        self._predicted, self._learned = predicted, learned
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)
        self.events = self.labels = 0
        self.clock = 0.0
        self.seconds = 0.0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, also before the end of the data."""
        self._stop.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        """True if all records were sent or the thread failed."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            writer = self._log.writer()
            try:
                burst: list[Out] = []
                size = max(1, int(self._rate * _BURST_S))
                for moment in departures(self._pipeline, self._weeks):
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
        """Wait until the next burst may be sent: not above the rate, not too far ahead. Return False if stopped."""
        while (early := started + self.events / self._rate - time.monotonic()) > 0 or self._ahead():
            if self._stop.wait(min(max(early, _BURST_S / 4), _BURST_S)):
                return False
        return not self._stop.is_set()

    def _ahead(self) -> bool:
        """Return True if worker or retrainer are too far behind."""
        unpredicted = self.events - self._predicted()
        return unpredicted > _MOST_UNPREDICTED or self.labels - self._learned() > _MOST_UNLEARNED
