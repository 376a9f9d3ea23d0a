"""Online updates, decided (pure): what is learned next, from which release on, and what the chain of updates was.

    rows --take--> fresh --next--> learning --learned--> memory        (one chunk at a time)
                     ^                 +------failed-------> fresh again, or memory without having been learned

A *chain* is a row of updates that began with the weights of one release (its base; 0: fresh weights) and a replay
memory in an order that is a function of offsets alone. Base, memory, chunks and seed make the weights: that is what a
release tells of itself and what `models rebuild` repeats. A chain ends when the champion is no longer its newest
release, when an update failed, and after `CHAIN` updates or `TOLD` numbers, so that what a release has to tell stays
short.
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
from tailrace.retrain.selection.buffer import Row, by_maturity, parted, ranges_of

CHAIN = 500
TOLD = 40_000  # numbers, one an update and partition that it learned from: a third of what a manifest may have
CHUNK = 20_000  # labels an update at most: in a backlog so many are learned each time, by fewer and larger steps


class Beginning(NamedTuple):
    """Where a chain begins: with the champion's weights, or fresh ones made with `seed`; and what is remembered."""

    warm: bool
    remembered: list[Row]
    seed: int


class Update(NamedTuple):
    """What the twin is to do: begin a chain, or go on (None), and learn `rows` in their order."""

    beginning: Beginning | None
    rows: list[Row]


class Updater:
    """Decides updates of one pipeline. `fresh` rows wait to be learned; times are seconds on one clock.

    `seed` is the declaration's; the base's version is added, so that chains differ and yet repeat.
    """

    def __init__(self, topic: str, plan: Online, seed: int) -> None:
        self._topic, self._plan, self._seed = topic, plan, seed
        self._memory: list[Row] = []  # the newest of it are remembered, as many as the plan says
        self._fresh: deque[Row] = deque()
        self._learning: list[Row] = []
        self._known: dict[int, int] = {}  # what the last run's release has learned
        self._chain: _Chain | None = None
        self._last = -math.inf  # when the last update was begun

    def take(self, rows: Iterable[Row], learned: Mapping[int, int]) -> None:
        """New rows, each partition in offset order. Those below `learned` (partition -> offset) were learned by an
        earlier process: they are remembered only."""
        known, fresh = parted(rows, lambda row: row.below(learned))
        self._remember(known)
        self._fresh.extend(fresh)

    @property
    def behind(self) -> bool:
        """Whether so many rows wait to be learned that reading more of them had better wait too."""
        return len(self._fresh) >= max(self._plan.window, self._plan.labels, CHUNK)

    @property
    def waiting(self) -> int:
        """How many labels the next update would learn."""
        return min(len(self._fresh), CHUNK)

    def due(self, now: float) -> bool:
        """Whether there are labels for an update, and it is time for one."""
        return not self._learning and len(self._fresh) >= self._plan.labels and now - self._last >= self._plan.seconds

    def next(self, now: float, champion: int, *, fits: bool) -> Update:
        """The next chunk, and where the twin has to begin when no chain leads to the champion.

        `fits`: the champion's weights can be learned on; else all that is remembered is learned anew.
        """
        chain = None if self.follows(champion) else self._begin(champion, fits)
        self._last = now
        chunk = [self._fresh.popleft() for _ in range(self.waiting)]
        self._learning = by_maturity(chunk)
        return Update(chain, self._learning)

    def follows(self, champion: int) -> bool:
        """Whether the next update continues the chain: then the champion's weights are not needed."""
        chain = self._chain
        return chain is not None and chain.newest == champion and len(chain.learned) < CHAIN and chain.told_of < TOLD

    @property
    def learning(self) -> list[Row]:
        """The chunk under way, in the order in which it is learned."""
        return self._learning

    @property
    def newest(self) -> int:
        """The release that the chain has come to: the parent of the next one."""
        return self._chain.newest if self._chain else 0

    def told(self) -> Updates:
        """How the twin's weights come to be, with the chunk under way."""
        assert self._chain is not None
        return self._chain.told(self._learning)

    def published(self, version: int) -> None:
        """The chunk was learned, the twin's weights are now this release."""
        assert self._chain is not None
        self._chain.add(self._learning, version)
        self._remember(self._learning)
        self._learning = []

    def failed(self, *, again: bool) -> None:
        """The chunk was not learned; the chain ends. `again`: it was not the chunk's fault, it is tried again."""
        known, fresh = parted(self._learning, lambda row: not again or row.below(self._known))
        self._remember(known)
        self._fresh = deque(_ordered([*fresh, *self._fresh]))
        self._learning = []
        self._chain = None

    def restart(self, considered: Mapping[int, int]) -> None:
        """A release that has learned the rows below `considered` (partition -> offset), and no others, became the
        champion; the chunk under way will fail."""
        rows = [*self._memory, *self._fresh]
        self._memory, self._fresh = [], deque()
        self.take(rows, considered)
        self._known = dict(considered)
        self._chain = None

    def positions(self, read: Mapping[int, int], *, with_chunk: bool) -> dict[int, int]:
        """partition -> offset below which all is learned (`with_chunk`: once the chunk under way is); `read`:
        partition -> where reading goes on."""
        positions = dict(read)
        for row in self._fresh if with_chunk else (*self._fresh, *self._learning):
            positions[row.partition] = min(positions.get(row.partition, row.offset), row.offset)
        return positions

    def _begin(self, champion: int, fits: bool) -> Beginning:
        remembered = self._newest()
        if not fits:
            self._fresh.extendleft(reversed(remembered))
            remembered = []
        self._memory = list(remembered)
        base = champion if fits else 0
        seed = self._seed + base
        self._chain = _Chain(self._topic, base, seed, champion, remembered, self._plan)
        return Beginning(fits, remembered, seed)

    def _remember(self, rows: Iterable[Row]) -> None:
        self._memory.extend(rows)
        if len(self._memory) > 2 * self._plan.window:  # not each time: they are sorted for it
            self._memory = self._newest()

    def _newest(self) -> list[Row]:
        """What is remembered: whoever read and learned it in which order, the end of each partition."""
        return _ordered(self._memory)[-self._plan.window :]


def _ordered(rows: Iterable[Row]) -> list[Row]:
    """By maturity, wherever they come from: a partition's rows have to be in the order of their offsets for that."""
    return by_maturity(sorted(rows, key=attrgetter("partition", "offset")))


class _Chain:
    """What a chain's releases tell of themselves. `newest`: the release that its weights are; `told_of`: see TOLD."""

    def __init__(self, topic: str, base: int, seed: int, newest: int, remembered: list[Row], plan: Online) -> None:
        self.newest = newest
        self.learned: list[dict[int, int]] = []
        self.told_of = 0
        self._base, self._seed, self._plan = base, seed, plan
        self._remembered = [Range(topic, partition, *part) for partition, part in sorted(ranges_of(remembered).items())]
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def add(self, rows: list[Row], version: int) -> None:
        self.newest = version
        chunk = sorted(ranges_of(rows).items())
        for partition, (start, _) in chunk:
            self._starts.setdefault(partition, start)
        self.learned.append(self._advance(rows))
        self.told_of += len(chunk)
        self._ends.update((partition, end) for partition, (_, end) in chunk)

    def told(self, rows: list[Row]) -> Updates:
        starts = {partition: start for partition, (start, _) in sorted(ranges_of(rows).items())}
        return Updates(
            base=self._base,
            seed=self._seed,
            remembered=self._remembered,
            starts=starts | self._starts,
            learned=[*self.learned, self._advance(rows)],
            plan=msgspec.to_builtins(self._plan),
        )

    def _advance(self, rows: list[Row]) -> dict[int, int]:
        """partition -> by how many offsets these rows go on from where the last update ended."""
        chunk = sorted(ranges_of(rows).items())
        return {partition: end - self._ends.get(partition, start) for partition, (start, end) in chunk}
