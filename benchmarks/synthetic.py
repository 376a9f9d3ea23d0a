"""Synthetic streams on which the default model was not chosen, written as CSV files.

They have properties that the real streams lack: many features, regression, outliers, rare labels, many classes and many
categories. As files they take the same path as a user's data.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

EVENTS = 12_000
Floats: TypeAlias = NDArray[np.float64]
Random: TypeAlias = np.random.Generator


class Table(NamedTuple):
    """Numbers [n, features] (NaN: missing), categories [n, columns] and labels [n]."""

    numbers: Floats
    categories: NDArray[np.str_]
    labels: NDArray[np.str_]


def write(name: str, directory: Path, seed: int = 7) -> Path:
    """Write one of `STREAMS` as a CSV file with the label in column `label`; return the path."""
    file = directory / f"{name.replace(' ', '_')}.csv"
    numbers, categories, labels = STREAMS[name](np.random.default_rng(seed))
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        names = [f"x{i}" for i in range(numbers.shape[1])], [f"c{i}" for i in range(categories.shape[1])]
        writer.writerow([*names[0], *names[1], "label"])
        for row, values, label in zip(numbers.tolist(), categories, labels, strict=True):
            writer.writerow([*("" if x != x else f"{x:.5g}" for x in row), *values, label])
    return file


def wide(random: Random) -> Table:
    """Binary labels: the log-odds are a sum over 20 of 500 features; halfway the weights and features change."""
    x = random.standard_normal((EVENTS, 500))
    before, after = np.zeros((2, 500))
    before[:20], after[10:30] = random.standard_normal((2, 20))
    half = EVENTS // 2
    return _binary(random, x, np.concatenate((x[:half] @ before, x[half:] @ after)))


def wide_classes(random: Random) -> Table:
    """Three classes: each logit is a sum over 15 of 300 features."""
    x, weights = random.standard_normal((EVENTS, 300)), random.standard_normal((15, 3))
    logits = x[:, :15] @ weights
    label = (logits + random.gumbel(size=logits.shape)).argmax(1)
    return Table(x, _none(), np.array([f"k{each}" for each in label]))


def wide_values(random: Random) -> Table:
    """Regression: the value is a sum over 100 features plus noise of the same variance.

    Features have one decimal, because River's trees examine each distinct value; they take minutes even so.
    """
    x = random.standard_normal((EVENTS, 100)).round(1)
    value = x @ (random.standard_normal(100) / 100**0.5) + random.standard_normal(EVENTS)
    return Table(x, _none(), np.array([f"{each:.5g}" for each in value]))


def heavy_tails(random: Random) -> Table:
    """Binary labels from 8 features with extreme outliers, a fifth missing; log-odds neither additive nor monotonic."""
    x = random.standard_t(1.5, (EVENTS, 8))
    odds = 2 * np.sin(x[:, 0]) + np.sign(x[:, 1]) * np.abs(x[:, 2]) ** 0.3 - (np.abs(x[:, 3]) > 1)
    return _binary(random, np.where(random.random(x.shape) < 0.2, np.nan, x), 2 * odds)


def rare(random: Random) -> Table:
    """Binary labels from 30 features; one in 35 is positive."""
    x = random.standard_normal((EVENTS, 30))
    return _binary(random, x, 1.5 * x[:, 0] + x[:, 1] * x[:, 2] - 4.8)


def classes(random: Random) -> Table:
    """Twelve classes around centres in 60 dimensions that move all the time."""
    first, last = 0.6 * random.standard_normal((2, 12, 60))
    label, progress = random.integers(12, size=EVENTS), np.linspace(0.0, 1.0, EVENTS)[:, None]
    x = first[label] * (1 - progress) + last[label] * progress + random.standard_normal((EVENTS, 60))
    return Table(x, _none(), np.array([f"k{each}" for each in label]))


def categories(random: Random) -> Table:
    """Binary labels: one column of 3,000 categories, five of 20 and one of four numbers add to the log-odds."""
    many, few = random.integers(0, 3_000, EVENTS), random.integers(0, 20, (EVENTS, 5))
    x, effects = random.standard_normal((EVENTS, 4)), random.standard_normal((5, 20))
    odds = random.standard_normal(3_000)[many] + 0.5 * effects[np.arange(5), few].sum(1) + x[:, 0]
    return _binary(random, x, odds)._replace(categories=np.char.add("v", np.column_stack((many, few)).astype(str)))


STREAMS: dict[str, Callable[[Random], Table]] = {
    "wide": wide,
    "many columns, classes": wide_classes,
    "many columns, values": wide_values,
    "heavy tails": heavy_tails,
    "rare": rare,
    "classes": classes,
    "categories": categories,
}


def _binary(random: Random, numbers: Floats, odds: Floats) -> Table:
    labels = (odds + random.logistic(size=EVENTS) > 0).astype(int)
    return Table(numbers, _none(), labels.astype(str))


def _none() -> NDArray[np.str_]:
    return np.empty((EVENTS, 0), dtype=np.str_)
