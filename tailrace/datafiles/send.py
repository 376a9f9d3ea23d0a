"""Sending: moments of a data file become records in the log, as fast as it goes, at a rate, or at the recorded pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from tailrace.errors import Exit, UserError

if TYPE_CHECKING:
    from tailrace.datafiles.read import Moment
    from tailrace.streams.log.base import Writer

BATCH = 1_000
PROGRESS_S = 1.0


class Sent(NamedTuple):
    """What was sent; times are the first and last moment on the replayed clock, None when nothing was."""

    events: int = 0
    labels: int = 0
    seconds: float = 0.0
    first: float | None = None
    last: float | None = None

    def and_(self, moments: Iterable[Moment], seconds: float) -> Sent:
        """This and some more."""
        events, labels, first, last = self.events, self.labels, self.first, self.last
        for moment in moments:
            events += moment.kind == "event"
            labels += moment.kind == "label"
            first = moment.time if first is None else first
            last = moment.time
        return Sent(events, labels, seconds, first, last)


class Pace(NamedTuple):
    """When a moment is due. `rate`: events a second; `factor`: recorded seconds in a second; neither: at once."""

    rate: float | None = None
    factor: float | None = None

    @classmethod
    def parse(cls, pace: str | None, rate: float | None) -> Pace:
        """From "fast", "recorded" or "x60", or from a rate. Raises UserError."""
        if rate is not None:
            if pace is not None or rate <= 0:
                raise UserError("--rate needs a number above 0 and excludes --pace", Exit.USAGE)
            return cls(rate=rate)
        if pace in (None, "fast"):
            return cls()
        text = "1" if pace == "recorded" else (pace or "").removeprefix("x")
        try:
            factor = float(text)
        except ValueError:
            factor = 0.0
        if not factor > 0:
            raise UserError(f"unknown pace {pace!r}: write fast, recorded, or a factor such as x60", Exit.USAGE)
        return cls(factor=factor)

    def schedule(self, moments: Iterable[Moment]) -> Iterator[tuple[float, Moment]]:
        """Each moment with the second, counted from the start, at which it is due."""
        events = 0
        first: float | None = None
        for moment in moments:
            first = moment.time if first is None else first
            due = 0.0
            if self.rate is not None:
                due = events / self.rate
            elif self.factor is not None:
                due = (moment.time - first) / self.factor
            events += moment.kind == "event"
            yield due, moment


def send(
    writer: Writer,
    moments: Iterable[Moment],
    pace: Pace,
    progress: Callable[[Sent], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Write the moments when they are due; all are durable when this returns. Raises what the writer raises."""
    started = told = clock()
    sent = Sent()
    batch: list[Moment] = []

    def hand_over() -> None:
        nonlocal sent, told
        if batch:
            writer.write([moment.out for moment in batch])
            writer.commit()
            sent = sent.and_(batch, clock() - started)
            batch.clear()
        if clock() - told >= PROGRESS_S:
            told = clock()
            progress(sent)

    for due, moment in pace.schedule(moments):
        if len(batch) >= BATCH or (due > 0 and due > clock() - started):
            hand_over()
            while (early := due - (clock() - started)) > 0:
                sleep(min(early, PROGRESS_S))
                hand_over()
        batch.append(moment)
    hand_over()
    writer.flush()
    return sent._replace(seconds=clock() - started)
