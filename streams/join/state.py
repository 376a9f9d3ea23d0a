"""The label join (pure): predictions and late labels become examples, each exactly once, with no state but the log.

State, for one partition number of the predictions and labels topics:

    open   id -> OpenPrediction  its window has not closed; once matched it stays to recognise duplicates
    early  id -> labels          labels whose prediction has not been read
    W                            the watermark: event time up to which windows have closed; it only grows

Transitions:

    prediction, id unknown               -> open; its early labels, if any, are applied in log order
    prediction, id open                  -> duplicate, ignored
    label, id open, before the deadline  -> applied: FIRST emits the example at once; LAST, MAX, ... remember it
    label, id open, after the deadline   -> late, counted
    label, id unknown                    -> early
    W reaches a prediction's deadline    -> closed: LAST, MAX, ... emit; without a label: nothing, or the implicit label
    W reaches an early label's deadline  -> unmatched, counted (it stays in the labels topic)

Deadline: event time + wait, rounded up to a hundredth of the wait, so that windows close in groups. A label is in time
if its own time lies before the deadline; the moment at which it is read does not matter. W is the newest event time
read, bounded by the newest label time read, or by the newest event time at the last moment when every label in the log
had been read. So catching up after a pause loses no label, whichever topic is read faster.

Exactly once. When positions (cP, cL) are committed, every example whose prediction lies below cP and whose label lies
below cL has been emitted, in a transaction that also committed those positions. The metadata of that commit holds W,
the offsets of the oldest records still held and the newest times read. `restore` re-reads from those offsets up to
(cP, cL) and emits nothing: an entry is open exactly if its deadline lies after the committed W, and all its labels lie
in the range, so the state is rebuilt exactly. The metadata also holds the wait of each prediction: when the declaration
changes it, open windows keep theirs and closed ones stay closed. An id is used once: a rebuild could not distinguish
two uses of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from tailrace.declaration.label import JoinPolicy, Winner
from tailrace.declaration.task import LabelValue
from tailrace.streams.join.bookmark import Bookmark
from tailrace.streams.join.label_policy import Given, winner
from tailrace.streams.log.records import Record

GRID = 100  # windows close in steps of wait / GRID
_encode = msgspec.json.Encoder().encode


class Counts(msgspec.Struct):
    """Numbers of predictions and labels by outcome, since the start of this process."""

    matched: int = 0
    implicit: int = 0
    expired: int = 0  # predictions whose label never came
    late: int = 0
    unmatched: int = 0  # labels whose prediction never came, or had been closed
    duplicate_labels: int = 0
    conflicting_labels: int = 0
    duplicate_predictions: int = 0


class Head(msgspec.Struct, gc=False):
    """Fields of a prediction that the join reads; its other bytes go into the example unchanged."""

    id: str
    time: float


class OpenPrediction(msgspec.Struct, gc=False):
    """A prediction whose window is open. `prediction` is None once its example has been emitted.

    A join holds millions of entries, so they hold no object that the garbage collector tracks.
    """

    prediction: bytes | None
    offset: int
    time: float  # of the event, unix seconds
    deadline: float
    given: tuple[Given, ...] = ()


Emitted: TypeAlias = tuple[str, bytes]


class PartitionJoin:
    """The join of one partition number. Methods return examples as (id, JSON bytes); see the module's docstring."""

    def __init__(self, policy: JoinPolicy, counts: Counts) -> None:
        self._policy = policy
        self._counts = counts
        self._waits = [(0, policy.wait)]  # see Bookmark.waits
        self._open: dict[str, OpenPrediction] = {}
        self._early: dict[str, list[Given]] = {}
        self._held: dict[int, None] = {}  # offsets of the labels in `_open` and `_early`, oldest first
        self._closing: dict[float, list[str]] = {}  # deadline -> ids in `open`
        self._expiring: dict[float, list[tuple[str, Given]]] = {}  # deadline -> labels that came early
        self._newest_prediction = -math.inf
        self._newest_label = -math.inf
        self._complete = -math.inf  # the newest prediction when the labels were at their end
        self.watermark = -math.inf
        self.bytes = 0
        """Total size of the predictions that wait for a label."""
        self.delays: list[float] = []
        """Seconds from event to label of the labelled examples emitted; the caller clears the list."""

    def __len__(self) -> int:
        """Number of predictions and early labels held."""
        return len(self._open) + len(self._early)

    def predictions(self, heads: Sequence[Head], records: Sequence[Record]) -> list[Emitted]:
        """Process predictions in log order; return the examples that they complete."""
        out: list[Emitted] = []
        wait, known, early = self._policy.wait, self._open, self._early
        changed = len(self._waits) > 1
        for head, record in zip(heads, records, strict=True):
            id, time = head.id, head.time
            if id in known:
                self._counts.duplicate_predictions += 1
                continue
            if time > self._newest_prediction:
                self._newest_prediction = time
            closes = deadline(time, self._wait_at(record.offset) if changed else wait)
            known[id] = entry = OpenPrediction(record.value or b"", record.offset, time, closes)
            self.bytes += len(entry.prediction or b"")
            self._closing.setdefault(closes, []).append(id)
            if id in early:
                for given in early.pop(id):
                    self._apply(id, entry, given, out)
            if closes <= self.watermark:
                self._close(id, out)
        return out

    def labels(self, givens: Iterable[tuple[str, Given]]) -> list[Emitted]:
        """Process labels in log order; return the examples that they complete."""
        out: list[Emitted] = []
        for id, given in givens:
            if given.time > self._newest_label:
                self._newest_label = given.time
            entry = self._open.get(id)
            if entry is not None:
                self._apply(id, entry, given, out)
                continue
            closes = deadline(given.time, self._policy.wait)
            if closes <= self.watermark:
                self._counts.unmatched += 1
                continue
            self._early.setdefault(id, []).append(given)
            self._held[given.offset] = None
            self._expiring.setdefault(closes, []).append((id, given))
        return out

    @property
    def newest_prediction(self) -> float:
        """Newest event time of the predictions read, unix seconds; -inf before the first."""
        return self._newest_prediction

    def labels_end(self, newest: float | None = None) -> None:
        """Record that all labels have been read that were in the log when `newest` was the newest event time.

        `newest` in unix seconds; None for the present moment. No label is missing for predictions up to that time.
        """
        self._complete = max(self._complete, self._newest_prediction if newest is None else newest)

    def advance(self, *, ordered: bool = True) -> list[Emitted]:
        """Move the watermark as far as the records read allow, and close the windows behind it.

        `ordered`: a label implies that earlier labels have been read. False where several partitions were merged into
        this one.
        """
        implied = min(self._newest_prediction, self._newest_label) if ordered else -math.inf
        newest = max(self._complete, implied)
        return self._advance_to(newest) if newest > self.watermark else []

    def bookmarks(self, predictions: int, labels: int) -> tuple[Bookmark, Bookmark]:
        """Return the bookmarks of both topics, from which `restore` rebuilds the state.

        Each names the oldest record still held. Where none is, that is the topic's position to commit: `predictions` or
        `labels`.
        """
        oldest = next(iter(self._open.values())).offset if self._open else predictions
        oldest_label = next(iter(self._held), labels)
        while len(self._waits) > 1 and self._waits[1][0] <= oldest:
            del self._waits[0]
        return (
            Bookmark(oldest, _known(self._newest_prediction), _known(self.watermark), self._waits),
            Bookmark(oldest_label, _known(self._newest_label)),
        )

    def restore(
        self,
        marks: tuple[Bookmark, Bookmark],
        position: int,
        predictions: Iterable[tuple[Sequence[Head], Sequence[Record]]],
        givens: Iterable[tuple[str, Given]],
    ) -> None:
        """Rebuild the state at a commit from the records between its bookmarks and the committed positions.

        `position` is the committed position of the predictions, which come in batches.
        """
        counts, self._counts = self._counts, Counts()
        mark, label_mark = marks
        if mark.watermark is not None:
            self._advance_to(mark.watermark)
        self._waits = list(mark.waits) or self._waits
        if self._waits[-1][1] != self._policy.wait:
            self._waits.append((position, self._policy.wait))
        gone: set[str] = set()
        for heads, records in predictions:
            self.predictions(heads, records)
            gone.update(head.id for head in heads if head.id not in self._open)
        self.labels((id, given) for id, given in givens if id not in gone)
        self._counts = counts
        self.delays.clear()
        self._newest_prediction = -math.inf if mark.newest is None else mark.newest
        self._newest_label = -math.inf if label_mark.newest is None else label_mark.newest

    def _wait_at(self, offset: int) -> float:
        """Return the wait, in seconds, that applies to the prediction at an offset."""
        return next((wait for start, wait in reversed(self._waits) if start <= offset), self._policy.wait)

    def _apply(self, id: str, entry: OpenPrediction, given: Given, out: list[Emitted]) -> None:
        """Apply a label to an open prediction. An early label stays in `_held` until the prediction's window closes."""
        if given.time >= entry.deadline:
            self._held.pop(given.offset, None)
            self._counts.late += 1
            return
        first = entry.given[0] if entry.given else None
        if first is not None:
            if first.value == given.value:
                self._counts.duplicate_labels += 1
            else:
                self._counts.conflicting_labels += 1
            if self._policy.wins is Winner.FIRST:
                self._held.pop(given.offset, None)
                return
        entry.given += (given,)
        self._held[given.offset] = None
        if self._policy.wins is Winner.FIRST:
            self._emit(id, entry, given, out)

    def _advance_to(self, watermark: float) -> list[Emitted]:
        out: list[Emitted] = []
        self.watermark = watermark
        for end in sorted(time for time in self._closing if time <= watermark):
            for id in self._closing.pop(end):
                self._close(id, out)
        for end in [time for time in self._expiring if time <= watermark]:
            for id, given in self._expiring.pop(end):
                self._drop_early(id, given)
        return out

    def _drop_early(self, id: str, given: Given) -> None:
        """Drop an early label; newer ones of the same id continue to wait."""
        waiting = self._early.get(id, [])
        if given not in waiting:  # its prediction came
            return
        waiting.remove(given)
        if not waiting:
            del self._early[id]
        self._held.pop(given.offset, None)
        self._counts.unmatched += 1

    def _close(self, id: str, out: list[Emitted]) -> None:
        entry = self._open.pop(id, None)
        if entry is None:  # closed on arrival: its prediction came when the window had passed
            return
        for given in entry.given:
            self._held.pop(given.offset, None)
        if entry.prediction is None:
            return
        if entry.given:
            self._emit(id, entry, winner(self._policy.wins, entry.given), out)
            return
        self.bytes -= len(entry.prediction)
        if self._policy.implicit is not None:
            self._counts.implicit += 1
            out.append((id, example(entry.prediction, self._policy.implicit, entry.deadline, implicit=True)))
        else:
            self._counts.expired += 1

    def _emit(self, id: str, entry: OpenPrediction, given: Given, out: list[Emitted]) -> None:
        assert entry.prediction is not None
        self._counts.matched += 1
        self.bytes -= len(entry.prediction)
        self.delays.append(given.time - entry.time)
        out.append((id, example(entry.prediction, given.value, given.time)))
        entry.prediction = None  # its bytes are not needed any more


def deadline(time: float, wait: float) -> float:
    """Return the time at which the window of an event of this time closes, unix seconds."""
    step = wait / GRID
    return (int((time + wait) // step) + 1) * step


def _known(time: float) -> float | None:
    return None if math.isinf(time) else time


def example(prediction: bytes, label: LabelValue, time: float, implicit: bool = False) -> bytes:
    """Return an example's JSON: the prediction's bytes with the label's fields appended (see records.Example)."""
    tail = b',"implicit":true}' if implicit else b"}"
    return b'%b,"label":%b,"label_time":%b%b' % (prediction.rstrip()[:-1], _encode(label), _encode(time), tail)
