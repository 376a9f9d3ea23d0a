"""Drift of inputs (deterministic): features whose newest window is unlike every earlier one.

The window of the newest `WINDOW` labels is compared with every earlier window by the population stability index (PSI)
over ten quantile bins of a number, or the commonest values of a category; missing values have a bin of their own. A
feature has shifted if even its most similar earlier window has a PSI of

- at least `shift` (0.25 is customary),
- more than chance gives (PSI times the harmonic size is about chi-square: Yurdakul and Naranjo, "Statistical properties
  of the population stability index", 2020), and
- twice the usual value (the 90 % quantile over earlier windows, of which there must be five): no two days are alike.

A daily cycle therefore signals at most once, not every evening. Results depend on the order of labels, never on their
batches. Cost: a bounded number of cells of each window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.declaration.facts import Change
from tailrace.inference.models.encoding import Inputs
from tailrace.retrain.control.drift_level import Level

WINDOW = 1_000  # labels whose inputs are compared
WINDOWS = 64  # earlier windows kept
FAMILIAR = 5  # windows that measure what is usual before any is called unusual
UNUSUAL = 2.0  # times the usual stability index
BINS = 10
CELLS = 65_536  # of a window at most; of wider inputs every k-th row is taken
_LARGEST = float(np.finfo(np.float32).max)

Counts: TypeAlias = NDArray[np.float64]


class NovelInputs:
    """Detects windows of inputs that are unlike every earlier one."""

    def __init__(self, false_alarms: float, shift: float, names: Sequence[str] | None) -> None:
        self._false_alarms, self._shift, self._names = false_alarms, shift, names
        self._parts: list[Inputs] = []
        self._waiting = 0
        self._bins: _Bins | None = None
        self._first: list[Inputs] = []
        self._known: deque[Counts] = deque(maxlen=WINDOWS)
        self._usual: deque[Counts] = deque(maxlen=WINDOWS)  # stability index of earlier windows against the nearest one
        self.levels: dict[str, Level] = {}
        """Stability index of each feature in the last complete window."""

    def update(self, inputs: Inputs) -> list[tuple[Change, int]]:
        """Add the next inputs. Return the features that shifted, each with the number of rows added until then."""
        changes: list[tuple[Change, int]] = []
        for start in range(0, inputs.rows, WINDOW):  # a large batch is taken piece by piece
            part = inputs.take(slice(start, start + WINDOW))
            self._parts.append(part)
            self._waiting += part.rows
            if self._waiting >= WINDOW:
                together = Inputs.concat(self._parts)
                self._parts, self._waiting = [together.take(slice(WINDOW, None))], self._waiting - WINDOW
                position = start + part.rows - self._waiting
                changes += [(change, position) for change in self._check(together.take(slice(0, WINDOW)))]
        return changes

    def _check(self, window: Inputs) -> list[Change]:
        width = window.numbers.shape[1] + window.categories.shape[1]
        window = window.take(slice(None, None, max(1, -(-WINDOW * width // CELLS))))
        if self._bins is not None:
            return self._compare(self._bins.counts(window), window.rows)
        self._first.append(window)
        if len(self._first) == FAMILIAR:
            self._bins = _Bins(Inputs.concat(self._first))
            for one in self._first:
                self._learn(self._bins.counts(one))
            self._first.clear()
        return []

    def _compare(self, counts: Counts, rows: int) -> list[Change]:
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
        """Return the stability index against the nearest known window, by column, and add the window to the known."""
        nearest: Counts = np.min([stability_index(known, counts) for known in self._known or [counts]], axis=0)
        if self._known:
            self._usual.append(nearest)
        self._known.append(counts)
        return nearest

    def _name(self, column: int) -> str:
        return self._names[column] if self._names is not None else f"column {column}"


class _Bins:
    """Bins of each column, from the first windows. Bin 0 counts missing values.

    Numbers: quantiles, and a bin on either side for values far out of the range. Categories: the commonest values, and
    a last bin for all others.
    """

    def __init__(self, window: Inputs) -> None:
        quantiles = np.arange(1, BINS) / BINS
        self._edges = [_edges(column, quantiles) for column in window.numbers.T]
        self._values = [_commonest(column) for column in window.categories.T]

    def counts(self, window: Inputs) -> Counts:
        """Rows in each bin, shape [numbers + categories, BINS + 3]."""
        numbers = (
            np.bincount(np.where(np.isnan(column), 0, 1 + edges.searchsorted(column)), minlength=BINS + 3)
            for column, edges in zip(window.numbers.T, self._edges, strict=True)
        )
        categories = (
            np.bincount(_places(column, values), minlength=BINS + 3)
            for column, values in zip(window.categories.T, self._values, strict=True)
        )
        return np.array([*numbers, *categories], np.float64).reshape(-1, BINS + 3)


def stability_index(expected: Counts, observed: Counts) -> Counts:
    """Population stability index of each row of counts, shape [n, bins]: the sum of (p - q) ln(p / q), in nats.

    Half a row is added to each bin, so that empty bins count finitely.
    """
    p = (expected + 0.5) / (expected + 0.5).sum(1, keepdims=True)
    q = (observed + 0.5) / (observed + 0.5).sum(1, keepdims=True)
    index: Counts = ((p - q) * np.log(p / q)).sum(1)
    return index


def _edges(column: NDArray[np.float32], quantiles: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distinct inner edges. A bin is (edge below, edge], so that a frequent value has a bin of its own."""
    present = column[~np.isnan(column)]
    if not len(present):
        return np.zeros(1, np.float32)
    low, high = float(present.min()), float(present.max())
    inner = np.quantile(present, quantiles, method="inverted_cdf")
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
    """Value that chi-square exceeds with probability `beyond` (Wilson and Hilferty, 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + NormalDist().inv_cdf(1 - beyond) * math.sqrt(part)) ** 3)
