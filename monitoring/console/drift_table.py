"""Drift of each feature as the page shows it: the population stability index that the Drift trigger looks at.

Deterministic: the result depends on the order of the examples alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tailrace.declaration.triggers import Drift, Trigger
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.retrain.control.input_drift import FAMILIAR, WINDOW, NovelInputs

ROWS = 20
_CYCLIC = re.compile(r"\.(sin|cos)[^.]*$")  # the encoded columns of a cyclic feature


class DriftTable:
    """Measures windows of inputs with the declared `Drift` trigger, or with the default one where none is declared."""

    def __init__(self, features: Features, triggers: Sequence[Trigger]) -> None:
        declared = next((trigger for trigger in triggers if isinstance(trigger, Drift)), Drift())
        shift = Drift().shift if declared.shift is None else declared.shift
        self._inputs = NovelInputs(declared.false_alarms, shift or 0.0, (*features.numbers, *features.categories))
        self._rows = 0

    def take(self, inputs: Inputs) -> None:
        """Add the inputs of labelled events, in the order of their labels."""
        self._rows += inputs.rows
        self._inputs.update(inputs)

    def section(self) -> dict[str, Any]:
        """Section of the page: `rows` holds up to `ROWS` features, the largest share of their threshold first.

        There are no rows until `first` inputs were added; `seen` is their number so far.
        Of a cyclic feature the column with the larger share is shown.
        """
        features: dict[str, dict[str, Any]] = {}
        for column, level in self._inputs.levels.items():
            name = _CYCLIC.sub("", column)
            row = {"feature": name, "index": round(level.score, 4), "threshold": round(level.threshold, 4)}
            if name not in features or _share(row) > _share(features[name]):
                features[name] = row
        rows = sorted(features.values(), key=_share, reverse=True)[:ROWS]
        return {"window": WINDOW, "first": (FAMILIAR + 1) * WINDOW, "seen": self._rows, "rows": rows}


def _share(row: dict[str, Any]) -> float:
    """Index divided by its threshold: above 1 is drift."""
    return float(row["index"] / row["threshold"]) if row["threshold"] else 0.0
