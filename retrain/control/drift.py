"""Whether the world has changed (deterministic): a rise of the live loss, and inputs unlike any seen before.

**Loss.** The test is ADWIN's (Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", 2007): is
there a cut of the window whose newer part has another mean than its older one, beyond a bound that chance hardly
passes? It differs in three ways, each for want of false alarms. Only a rise is drift: a fall makes the window forget
what was before it, so that a model that is still learning sets itself a stricter reference. A rise must also matter:
at least `effect` standard deviations of the loss, so that many labels do not make a trifle significant. And the
variance is the larger of that of single losses and that of the means of blocks, since losses of neighbours are alike
where life has rush hours. Losses are cut off where they are extreme (4 standard deviations above the mean of the first
256 of a window), as one certain mistake must not decide alone; the bound is Bernstein's, which holds for skewed losses,
such as those of rare classes.

**Inputs.** The window of the newest `WINDOW` labels is compared with every earlier one by the population stability
index (PSI) over ten quantile bins a number and the commonest values of a category, missing ones apart. A feature has
shifted when even its most similar earlier window is unlike it: PSI of at least `shift` (0.25 is customary) and beyond
what chance gives (PSI times the harmonic size is about chi-square: Yurdakul and Naranjo, "Statistical properties of the
population stability index", 2020), and of twice what is usual (the 90 % quantile over earlier windows, of which there
must be five): the weather is new every day. So daily cycles are news once at most, not every evening.

Results depend on the order of labels, never on how they were batched. Cost: about 1 us a label for the loss; of the
inputs a bounded number of cells a window is looked at.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.facts import Change, DriftSignals
from tailrace.inference.models.encoding import Inputs

BLOCK = 32  # losses that are looked at together
CALIBRATION = 256  # losses that say what is extreme
EXTREME = 4.0
LEAST_OLD, LEAST_NEW = 320, 96  # labels on either side of a cut
MOST = 256  # blocks held; beyond, the oldest are joined in pairs
WINDOW = 1_000  # labels whose inputs are compared
WINDOWS = 64  # earlier windows remembered
FAMILIAR = 5  # windows that say what is usual, before any is called unusual
UNUSUAL = 2.0  # times what is usual
BINS = 10
CELLS = 65_536  # of a window at most; of wider inputs every k-th row is taken
_LARGEST = float(np.finfo(np.float32).max)

Losses: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.float64]


class Level(NamedTuple):
    """How far something has changed, and from where on that is drift."""

    score: float
    threshold: float


class DriftMonitor:
    """Watches one pipeline's labels. `false_alarms`: the chance of one at a look at the loss, a bound; see the module
    for `effect` and `shift`. `names` of the numbers and categories, for people."""

    def __init__(
        self, *, false_alarms: float, effect: float, shift: float | None, names: Sequence[str] | None = None
    ) -> None:
        self._loss = _RisingLoss(false_alarms, effect)
        self._inputs = NovelInputs(false_alarms, shift, names) if shift is not None else None
        self._rise: Change | None = None
        self._began_at: int | None = None  # the label count when the loss last began to rise
        self._shifts: dict[str, tuple[Change, int]] = {}  # with the label count of then
        self._labels = 0
        self._learned = 0
        self.detections = {"loss": 0, "inputs": 0}
        """How often each has drifted since this monitor was made."""

    def update(self, losses: Losses, inputs: Inputs | None = None) -> None:
        """The next examples' losses [n] (lower is better) and, where they are watched, inputs, in label order."""
        before, self._labels = self._labels, self._labels + len(losses)
        found = self._loss.update(losses)
        if found is not None:
            self._rise, self._began_at = found, self._labels - found.labels
            self._learned = 0
            self.detections["loss"] += 1
        if self._inputs is not None and inputs is not None:
            for change, rows in self._inputs.update(inputs):
                self.detections["inputs"] += 1
                self._shifts.setdefault(change.what, (change, before + rows))

    @property
    def wants_inputs(self) -> bool:
        """Whether inputs are watched."""
        return self._inputs is not None

    def remember(self, inputs: Inputs) -> None:
        """Inputs of the past, oldest first: they are known, and no news."""
        if self._inputs is not None:
            self._inputs.update(inputs)

    @property
    def levels(self) -> dict[str, Level]:
        """Stability index of each feature in the last complete window; empty where inputs are not watched."""
        return self._inputs.levels if self._inputs is not None else {}

    @property
    def loss_level(self) -> Level | None:
        """Rise of the loss at the clearest cut of the last look; None before the first look."""
        return self._loss.level

    @property
    def signals(self) -> DriftSignals:
        """What has drifted since `considered`."""
        changed = None if self._began_at is None else self._labels - self._began_at
        rise = msgspec.structs.replace(self._rise, labels=changed) if self._rise is not None else None
        shifts = (
            msgspec.structs.replace(change, labels=change.labels + self._labels - then)
            for change, then in self._shifts.values()
        )
        return DriftSignals(rise, tuple(shifts), changed, self._learned)

    def considered(self) -> None:
        """A run was begun, which answers what was signalled. What the loss was, and which inputs were seen, stays
        known: the gate lets no champion pass that is worse, and one that is better sets a stricter reference."""
        self._rise = None
        self._shifts.clear()
        self._learned = 0 if self._began_at is None else self._labels - self._began_at


class _RisingLoss:
    """The rises of a mean. Held are blocks of losses: their sizes, sums, sums of squares and squares of sums over
    sizes; and the newest losses as they came, to begin anew with."""

    def __init__(self, false_alarms: float, effect: float) -> None:
        self._false_alarms, self._effect = false_alarms, effect
        self._pending: list[Losses] = []
        self._waiting = 0
        self._newest: deque[Losses] = deque(maxlen=MOST)
        self._extreme = math.inf
        self.level: Level | None = None  # at the clearest cut of the last look
        self._blocks = 0
        self._sizes, self._sums, self._squares, self._means = np.zeros((4, MOST))

    def update(self, losses: Losses) -> Change | None:
        """Take the next losses, but for those that are no finite number; the newest rise among them."""
        finite = losses[np.isfinite(losses)].astype(np.float64, copy=False)
        self._pending.append(finite)
        self._waiting += len(finite)
        if self._waiting < BLOCK or (not self._blocks and self._waiting < CALIBRATION):
            return None
        waiting = np.concatenate(self._pending)
        if not self._blocks:
            self._extreme = _extreme(waiting)
        whole = len(waiting) - len(waiting) % BLOCK
        self._pending, self._waiting = [waiting[whole:]], len(waiting) - whole
        found: Change | None = None
        for end in range(BLOCK, whole + 1, BLOCK):
            if (rise := self._add(waiting[end - BLOCK : end])) is not None:
                found = msgspec.structs.replace(rise, labels=rise.labels + len(waiting) - end)
        return found

    def _add(self, losses: Losses) -> Change | None:
        if self._blocks == MOST:
            self._join_oldest()
        at = self._blocks
        cut = np.minimum(losses, self._extreme)
        total = cut.sum()
        self._newest.append(losses)
        self._sizes[at], self._sums[at], self._squares[at] = BLOCK, total, cut @ cut
        self._means[at] = total * total / BLOCK
        self._blocks += 1
        return self._look()

    def _join_oldest(self) -> None:
        """The oldest half in pairs: cuts there need not be fine."""
        half, kept = MOST // 2, MOST - MOST // 4
        for held in (self._sizes, self._sums, self._squares, self._means):
            held[: half // 2] = held[0:half:2] + held[1:half:2]
            held[half // 2 : kept] = held[half:MOST].copy()
        joined = slice(0, half // 2)
        self._means[joined] = self._sums[joined] ** 2 / self._sizes[joined]
        self._blocks = kept

    def _look(self) -> Change | None:
        """The rise at the clearest cut. What was before a rise or a fall is dropped."""
        sums, sizes = self._sums[: self._blocks].cumsum(), self._sizes[: self._blocks].cumsum()
        first, last = np.searchsorted(sizes, (LEAST_OLD, sizes[-1] - LEAST_NEW + 1))
        if first >= last:
            return None
        cuts = slice(int(first), int(last))
        old, new = sizes[cuts], sizes[-1] - sizes[cuts]
        before, after = sums[cuts] / old, (sums[-1] - sums[cuts]) / new
        change = after - before
        if not (change.max() > 0 or -change.min() > 0):
            return None
        around = old * before * before
        single = self._squares[: self._blocks].cumsum()[cuts] - around
        between = self._means[: self._blocks].cumsum()[cuts] - around
        variance = np.maximum(np.maximum(single / old, between / np.arange(first, last).clip(min=1)), 0.0)
        share = 1 / old + 1 / new
        doubt = math.log(2 * len(old) / self._false_alarms)
        chance = np.sqrt(2 * doubt * variance * share) + (2 / 3) * doubt * max(self._extreme, 0.0) * share
        least = np.maximum(chance, self._effect * np.sqrt(variance))
        best = int((change - least).argmax())
        self.level = Level(float(change[best]), float(least[best]))
        if change[best] > least[best]:
            rise = Change(
                "loss", float(change[best]), float(least[best]), int(new[best]), float(before[best]), float(after[best])
            )
            self._begin_with(rise.labels)
            return rise
        fall = int((change + chance).argmin())
        if change[fall] < -chance[fall]:
            self._begin_with(int(new[fall]))
        return None

    def _begin_with(self, labels: int) -> None:
        """Forget all but so many newest losses, as far as they are held; they say anew what is extreme."""
        kept = list(self._newest)[-(labels // BLOCK) :]
        losses = np.concatenate(kept)
        self._extreme = _extreme(losses)
        rows = np.minimum(losses, self._extreme).reshape(-1, BLOCK)
        self._blocks = blocks = len(rows)
        self._sizes[:blocks], self._sums[:blocks], self._squares[:blocks] = BLOCK, rows.sum(1), (rows**2).sum(1)
        self._means[:blocks] = self._sums[:blocks] ** 2 / BLOCK


def _extreme(losses: Losses) -> float:
    """Beyond which the first of these say a loss is extreme."""
    first = losses[:CALIBRATION]
    return float(first.mean() + EXTREME * first.std())


class NovelInputs:
    """Windows of inputs that are unlike each earlier one."""

    def __init__(self, false_alarms: float, shift: float, names: Sequence[str] | None) -> None:
        self._false_alarms, self._shift, self._names = false_alarms, shift, names
        self._parts: list[Inputs] = []
        self._waiting = 0
        self._bins: _Bins | None = None
        self._first: list[Inputs] = []
        self._known: deque[Counts] = deque(maxlen=WINDOWS)
        self._usual: deque[Counts] = deque(maxlen=WINDOWS)  # how unlike their predecessors earlier windows were
        self.levels: dict[str, Level] = {}  # of the last window

    def update(self, inputs: Inputs) -> list[tuple[Change, int]]:
        """Take the next inputs; the features that shifted in them, each with how many of the rows had come by then."""
        changes: list[tuple[Change, int]] = []
        for start in range(0, inputs.rows, WINDOW):  # a large batch is taken piece by piece
            part = inputs.take(slice(start, start + WINDOW))
            self._parts.append(part)
            self._waiting += part.rows
            if self._waiting >= WINDOW:
                together = Inputs.concat(self._parts)
                self._parts, self._waiting = [together.take(slice(WINDOW, None))], self._waiting - WINDOW
                then = start + part.rows - self._waiting
                changes += [(change, then) for change in self._look(together.take(slice(0, WINDOW)))]
        return changes

    def _look(self, window: Inputs) -> list[Change]:
        width = window.numbers.shape[1] + window.categories.shape[1]
        window = window.take(slice(None, None, max(1, -(-WINDOW * width // CELLS))))
        if self._bins is not None:
            return self._unlike(self._bins.counts(window), window.rows)
        self._first.append(window)
        if len(self._first) == FAMILIAR:
            self._bins = _Bins(Inputs.concat(self._first))
            for one in self._first:
                self._learn(self._bins.counts(one))
            self._first.clear()
        return []

    def _unlike(self, counts: Counts, rows: int) -> list[Change]:
        usual = UNUSUAL * np.quantile(self._usual, 0.9, axis=0)
        used = np.max([(known > 0) for known in (*self._known, counts)], axis=0).sum(1)
        chance = np.array([_chi_square(max(int(bins) - 1, 1), self._false_alarms / len(used)) for bins in used])
        threshold = np.maximum(np.maximum(self._shift, chance * 2 / rows), usual)
        nearest = self._learn(counts)
        measured = zip(nearest.tolist(), threshold.tolist(), strict=True)
        self.levels = {self._name(i): Level(*level) for i, level in enumerate(measured)}
        return [
            Change(self._name(i), float(nearest[i]), float(threshold[i]), WINDOW)
            for i in np.flatnonzero(nearest > threshold).tolist()
        ]

    def _learn(self, counts: Counts) -> Counts:
        """How unlike the nearest known window this one is, by column. It is known from now on."""
        nearest: Counts = np.min([stability_index(known, counts) for known in self._known or [counts]], axis=0)
        if self._known:
            self._usual.append(nearest)
        self._known.append(counts)
        return nearest

    def _name(self, column: int) -> str:
        return self._names[column] if self._names is not None else f"column {column}"


class _Bins:
    """Bins of each column, from the first windows: bin 0 for what is missing, then quantiles, with a bin on either side
    for what lies far out of the range, or the commonest values of a category and a last bin for all others."""

    def __init__(self, window: Inputs) -> None:
        quantiles = np.arange(1, BINS) / BINS
        self._edges = [_edges(column, quantiles) for column in window.numbers.T]
        self._values = [_commonest(column) for column in window.categories.T]

    def counts(self, window: Inputs) -> Counts:
        """How many rows fall into each bin: [numbers + categories, BINS + 3]."""
        numbers = (
            np.bincount(np.where(np.isnan(column), 0, 1 + edges.searchsorted(column)), minlength=BINS + 3)
            for column, edges in zip(window.numbers.T, self._edges, strict=True)
        )
        categories = (
            np.bincount(_places(column, values), minlength=BINS + 3)
            for column, values in zip(window.categories.T, self._values, strict=True)
        )
        return np.array([*numbers, *categories], np.float64).reshape(-1, BINS + 3)


def stability_index(expected: Counts, found: Counts) -> Counts:
    """PSI of each row of counts [n, bins]: the sum of (p - q) ln(p / q), in nats; half a row is added to each bin, so
    that empty ones count finitely."""
    p = (expected + 0.5) / (expected + 0.5).sum(1, keepdims=True)
    q = (found + 0.5) / (found + 0.5).sum(1, keepdims=True)
    index: Counts = ((p - q) * np.log(p / q)).sum(1)
    return index


def _edges(column: NDArray[np.float32], quantiles: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distinct inner edges; a bin is (edge below, edge], so that a value of which there is much has its own."""
    there = column[~np.isnan(column)]
    if not len(there):
        return np.zeros(1, np.float32)
    low, high = float(there.min()), float(there.max())
    inner = np.quantile(there, quantiles, method="inverted_cdf")
    edges = np.array([2 * low - high, *inner, 2 * high - low]).clip(-_LARGEST, _LARGEST)
    return np.unique(edges.astype(np.float32))


def _commonest(column: NDArray[np.int64]) -> NDArray[np.int64]:
    values, counts = np.unique(column[column != 0], return_counts=True)
    return np.sort(values[np.argsort(-counts, kind="stable")[: BINS - 1]])


def _places(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(values):
        return np.where(column == 0, 0, BINS)
    at = values.searchsorted(column).clip(max=len(values) - 1)
    return np.where(column == 0, 0, np.where(values[at] == column, 1 + at, BINS))


def _chi_square(freedom: int, beyond: float) -> float:
    """The value that chi-square exceeds with this probability (Wilson and Hilferty, 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + NormalDist().inv_cdf(1 - beyond) * math.sqrt(part)) ** 3)
