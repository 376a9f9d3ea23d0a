"""Planning of online updates (pure): the labels that each update learns, and the chain of updates behind a release.

    examples --take--> waiting --next_update--> learning --published--> replayed
                          ^                        |
                          +------------------------+  failed, or refused: a smaller chunk, until the smallest is skipped

A *chain* is a series of updates that started from the weights of one release (its base; 0: fresh weights) and from
replayed examples in an order that is a function of offsets alone. Base, replayed examples, chunks and seed determine
the weights. A release records them, and `models rebuild` repeats them. A chain ends when another release becomes the
champion, when an update fails or is refused, and after `MAX_UPDATES` updates or `MAX_COUNTS` recorded numbers, so that
the record in a manifest stays short.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec

from tailrace.declaration.online import Online
from tailrace.inference.releases.manifest import Range, Updates
from tailrace.retrain.selection.buffer import Row, by_maturity, partition_rows, ranges_of

MAX_UPDATES = 500
MAX_COUNTS = 40_000  # one number per update and partition: a third of the size that a manifest may have
MAX_CHUNK = 20_000  # labels per update: a backlog is learned in fewer and larger steps


class ChainStart(NamedTuple):
    """The start of a chain: from the champion's weights (`warm`) or fresh ones made with `seed`, and the examples to
    replay."""

    warm: bool
    replayed: list[Row]
    seed: int


class Update(NamedTuple):
    """One update: `start` begins a chain (None: it goes on), `rows` are learned in their order."""

    start: ChainStart | None
    rows: list[Row]


class UpdatePlanner:
    """Plans the updates of one pipeline. Times are seconds on one clock.

    `seed` is the declaration's; the base's version is added, so that chains differ and yet repeat.
    """

    def __init__(self, topic: str, plan: Online, seed: int) -> None:
        self._topic, self._plan, self._seed = topic, plan, seed
        self._replayed: list[Row] = []  # the newest `plan.window` of these are replayed
        self._waiting: deque[Row] = deque()
        self._learning: list[Row] = []
        self._skipped: dict[int, int] = {}  # partition -> end of the rows that were skipped last
        self._learned_by_run: dict[int, int] = {}  # partition -> offset below which the last run's release has learned
        self._chain: _Chain | None = None
        self._last_start = -math.inf
        self._smallest = min(plan.labels, MAX_CHUNK)
        self._largest = MAX_CHUNK  # halved by a refusal, doubled by a release

    def take(self, rows: Iterable[Row], learned: Mapping[int, int]) -> None:
        """Add rows, each partition in offset order. Rows below `learned` (partition -> offset) are replayed only."""
        known, new = partition_rows(rows, lambda row: row.below(learned))
        self._replay(known)
        self._waiting.extend(new)

    @property
    def behind(self) -> bool:
        """True if so many rows wait for an update that the owner should stop reading examples."""
        return len(self._waiting) >= max(self._plan.window, self._plan.labels, MAX_CHUNK)

    @property
    def chunk(self) -> int:
        """Number of labels that the next update would learn."""
        return min(len(self._waiting), self._largest)

    @property
    def learning(self) -> list[Row]:
        """Rows of the update under way, in the order in which they are learned."""
        return self._learning

    @property
    def newest(self) -> int:
        """Newest release of the chain: the parent of the next one. 0 without a chain."""
        return self._chain.newest if self._chain else 0

    def leads_to(self, champion: int) -> bool:
        """True if this release is the newest of the chain."""
        return self._chain is not None and self._chain.newest == champion

    def due(self, now: float) -> bool:
        """True if enough labels wait for an update, and enough time has passed since the last one."""
        if self._learning or now - self._last_start < self._plan.seconds:
            return False
        return len(self._waiting) >= self._plan.labels

    def next_update(self, now: float, champion: int, *, fits: bool) -> Update:
        """Start an update on the next chunk of rows. It begins a new chain when no chain leads to the champion.

        `fits`: the declared module takes the champion's weights. Otherwise all replayed rows are learned again.
        """
        start = None if self.follows(champion) else self._start_chain(champion, fits)
        self._last_start = now
        self._learning = by_maturity([self._waiting.popleft() for _ in range(self.chunk)])
        return Update(start, self._learning)

    def follows(self, champion: int) -> bool:
        """True if the next update continues the chain, so that the champion's weights are not needed."""
        chain = self._chain
        if chain is None or not self.leads_to(champion):
            return False
        return len(chain.counts) < MAX_UPDATES and chain.recorded < MAX_COUNTS

    def lineage(self) -> Updates:
        """Record of the chain, the update under way included."""
        assert self._chain is not None
        return self._chain.lineage(self._learning)

    def published(self, version: int) -> None:
        """Record that the update under way became release `version`."""
        assert self._chain is not None
        self._chain.add(self._learning, version)
        self._largest = min(MAX_CHUNK, 2 * self._largest)
        self._end_update(replay=self._learning)

    def failed(self, *, again: bool) -> None:
        """Record that the update under way gave no release, and end the chain.

        `again`: its rows wait for another update; otherwise they are skipped.
        """
        known, waiting = partition_rows(self._learning, lambda row: not again or row.below(self._learned_by_run))
        self._waiting = deque(_ordered([*waiting, *self._waiting]))
        self._chain = None
        if not again:
            for row in self._learning:
                self._skipped[row.partition] = max(self._skipped.get(row.partition, 0), row.offset + 1)
        self._end_update(replay=known)

    def refused(self) -> bool:
        """Record that the update under way did harm. Return True if its rows wait for updates of half the size.

        Rows of an update of the smallest size are skipped. Smaller chunks take shorter steps, as TCP does after a loss
        (RFC 5681).
        """
        again = len(self._learning) > self._smallest
        if again:
            self._largest = max(self._smallest, len(self._learning) // 2)
        self.failed(again=again)
        return again

    def restart(self, learned: Mapping[int, int]) -> None:
        """Start again from a new champion, which has learned the rows below `learned` (partition -> offset) alone.

        The update under way will be overtaken.
        """
        rows = [*self._replayed, *self._waiting]
        self._replayed, self._waiting = [], deque()
        self.take(rows, learned)
        self._learned_by_run = dict(learned)
        self._chain = None

    def positions(self, read: Mapping[int, int], *, with_chunk: bool) -> dict[int, int]:
        """Map each partition to the offset below which all rows were learned or skipped.

        `read`: partition -> offset at which reading continues. `with_chunk`: count the update under way as learned.
        """
        positions = dict(read)
        # An update that a run overtakes holds rows which the run's release has learned: they do not wait.
        under_way = [] if with_chunk else [row for row in self._learning if not row.below(self._learned_by_run)]
        for row in (*self._waiting, *under_way):
            positions[row.partition] = min(positions.get(row.partition, row.offset), row.offset)
        return positions

    def _end_update(self, *, replay: list[Row]) -> None:
        self._replay(replay)
        self._learning = []

    def _start_chain(self, champion: int, fits: bool) -> ChainStart:
        replayed = self._newest_replayed()
        if not fits:  # rows before skipped ones stay out, so that each chunk is one range of offsets per partition
            again = [row for row in replayed if row.offset >= self._skipped.get(row.partition, 0)]
            self._waiting.extendleft(reversed(again))
            replayed = []
        self._replayed = list(replayed)
        base = champion if fits else 0
        seed = self._seed + base
        self._chain = _Chain(self._topic, base, seed, champion, replayed, self._plan)
        return ChainStart(fits, replayed, seed)

    def _replay(self, rows: Iterable[Row]) -> None:
        self._replayed.extend(rows)
        if len(self._replayed) > 2 * self._plan.window:  # not each time, because it sorts
            self._replayed = self._newest_replayed()

    def _newest_replayed(self) -> list[Row]:
        """The newest rows to replay, whatever the order in which they were read and learned."""
        return _ordered(self._replayed)[-self._plan.window :]


def _ordered(rows: Iterable[Row]) -> list[Row]:
    """Sort by maturity; `by_maturity` needs the rows of a partition in the order of their offsets."""
    return by_maturity(sorted(rows, key=attrgetter("partition", "offset")))


class _Chain:
    """Record of a chain. `counts`: by update, partition -> number of offsets that it learned."""

    def __init__(self, topic: str, base: int, seed: int, newest: int, replayed: list[Row], plan: Online) -> None:
        self.newest = newest
        self.counts: list[dict[int, int]] = []
        self.recorded = 0
        self._base, self._seed, self._plan = base, seed, plan
        self._replayed = [Range(topic, partition, *part) for partition, part in sorted(ranges_of(replayed).items())]
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def add(self, rows: list[Row], version: int) -> None:
        self.newest = version
        chunk = sorted(ranges_of(rows).items())
        for partition, (start, _) in chunk:
            self._starts.setdefault(partition, start)
        self.counts.append(self._advance(rows))
        self.recorded += len(chunk)
        self._ends.update((partition, end) for partition, (_, end) in chunk)

    def lineage(self, rows: list[Row]) -> Updates:
        starts = {partition: start for partition, (start, _) in sorted(ranges_of(rows).items())}
        return Updates(
            base=self._base,
            seed=self._seed,
            remembered=self._replayed,
            starts=starts | self._starts,
            learned=[*self.counts, self._advance(rows)],
            plan=msgspec.to_builtins(self._plan),
        )

    def _advance(self, rows: list[Row]) -> dict[int, int]:
        """Map each partition to the number of offsets between the end of the last update and the end of these rows."""
        chunk = sorted(ranges_of(rows).items())
        return {partition: end - self._ends.get(partition, start) for partition, (start, end) in chunk}
