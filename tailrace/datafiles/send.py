"""Writing a replay of a data file to the log: at full speed, at a rate, or at the recorded pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from tailrace.errors import Exit, UserError

if TYPE_CHECKING:
    from tailrace.datafiles.read import Moment
    from tailrace.streams.log.base import Writer

BATCH = 1_000  # most records of one commit
PROGRESS_S = 1.0  # seconds between two progress reports


class Sent(NamedTuple):
    """Summary of a send.

    `events`, `labels`: numbers of records written; `seconds`: duration so far; `first`, `last`: first and last time of
    the replay clock, None if nothing was written.
    """

    events: int = 0
    labels: int = 0
    seconds: float = 0.0
    first: float | None = None
    last: float | None = None

    def extended(self, moments: Iterable[Moment], seconds: float) -> Sent:
        """Return this summary with `moments` added, which were written by `seconds` after the start of the send."""
        events, labels, first, last = self.events, self.labels, self.first, self.last
        for moment in moments:
            events += moment.kind == "event"
            labels += moment.kind == "label"
            first = moment.time if first is None else first
            last = moment.time
        return Sent(events, labels, seconds, first, last)


class Pace(NamedTuple):
    """Pace of a send. `rate`: events a second; `factor`: recorded seconds sent in one second; neither: full speed."""

    rate: float | None = None
    factor: float | None = None

    @classmethod
    def parse(cls, pace: str | None, rate: float | None) -> Pace:
        """Return the pace for "fast" (the default), "recorded" or a factor such as "x60", or for a rate.

        Raises UserError for any other pace, for a rate of 0 or less, and for both.
        """
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
        """Yield each moment with its send time, in seconds after the start of the send."""
        events = 0
        first: float | None = None
        for moment in moments:
            first = moment.time if first is None else first
            send_at = 0.0
            if self.rate is not None:
                send_at = events / self.rate
            elif self.factor is not None:
                send_at = (moment.time - first) / self.factor
            events += moment.kind == "event"
            yield send_at, moment


def send(
    writer: Writer,
    moments: Iterable[Moment],
    pace: Pace,
    progress: Callable[[Sent], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Write the moments at the given pace; return when all are durable. Raises what the writer raises.

    `progress` is called about every PROGRESS_S seconds. `clock` and `sleep` are replaced in tests.
    """
    started = reported = clock()
    sent = Sent()
    batch: list[Moment] = []

    def write_batch() -> None:
        nonlocal sent, reported
        if batch:
            writer.write([moment.out for moment in batch])
            writer.commit()
            sent = sent.extended(batch, clock() - started)
            batch.clear()
        if clock() - reported >= PROGRESS_S:
            reported = clock()
            progress(sent)

    for send_at, moment in pace.schedule(moments):
        if len(batch) >= BATCH or (send_at > 0 and send_at > clock() - started):
            write_batch()
            while (early := send_at - (clock() - started)) > 0:
                sleep(min(early, PROGRESS_S))
                write_batch()
        batch.append(moment)
    write_batch()
    writer.flush()
    return sent._replace(seconds=clock() - started)
