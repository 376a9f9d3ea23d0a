"""Triggers of full training runs, for `Pipeline(retrain=[...])`.

    from tailrace import Pipeline, triggers

    Pipeline(..., retrain=[triggers.Schedule("0 5 * * MON"), triggers.Drift()])

The first trigger in declared order that is due starts the run. A trigger of your own is any object with a method
`due(facts: Facts)` that returns None, or the reason for a run as `Due(kind, reason)` or as a string.
"""

from tailrace.declaration.facts import Change, DriftSignals, Due, Facts, Live
from tailrace.declaration.triggers import Age, Below, Drift, Labels, Schedule, Trigger, Worthwhile

__all__ = [
    "Age",
    "Below",
    "Change",
    "Drift",
    "DriftSignals",
    "Due",
    "Facts",
    "Labels",
    "Live",
    "Schedule",
    "Trigger",
    "Worthwhile",
]
