"""How unlike all earlier inputs the newest ones are, feature by feature: what the Drift trigger looks at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tailrace.declaration.triggers import Drift, Trigger
from tailrace.inference.models.encoding import Features, Inputs
from tailrace.retrain.control.drift import FAMILIAR, WINDOW, NovelInputs

ROWS = 20
_CYCLIC = re.compile(r"\.(sin|cos)[^.]*$")


class Shifts:
    """Looks at windows of inputs, as the declared Drift does, or as its default would."""

    def __init__(self, features: Features, triggers: Sequence[Trigger]) -> None:
        declared = next((trigger for trigger in triggers if isinstance(trigger, Drift)), Drift())
        shift = Drift().shift if declared.shift is None else declared.shift
        names = (*features.numbers, *features.categories)
        self._inputs = NovelInputs(declared.false_alarms, shift or 0.0, names)
        self._seen = 0

    def see(self, inputs: Inputs) -> None:
        """The next inputs, in the order of their labels."""
        self._seen += inputs.rows
        self._inputs.update(inputs)

    def section(self) -> dict[str, Any]:
        """The features nearest to their thresholds, or beyond, first; of a cyclic one the column that is."""
        features: dict[str, dict[str, Any]] = {}
        for column, level in self._inputs.levels.items():
            name = _CYCLIC.sub("", column)
            row = {"feature": name, "index": round(level.score, 4), "threshold": round(level.threshold, 4)}
            if name not in features or _share(row) > _share(features[name]):
                features[name] = row
        rows = sorted(features.values(), key=_share, reverse=True)[:ROWS]
        return {"window": WINDOW, "first": (FAMILIAR + 1) * WINDOW, "seen": self._seen, "rows": rows}


def _share(row: dict[str, Any]) -> float:
    return float(row["index"] / row["threshold"]) if row["threshold"] else 0.0
