"""Tailrace: streaming inference with continuous retraining from late labels.

A pipeline is declared with the names below; the command line runs it. `tailrace.triggers` and `tailrace.data` hold the
triggers of training runs and the data policies. Each name is imported at its first use, so that `tailrace --help` does
not load numpy.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace import data, triggers
    from tailrace.declaration.data import History as History
    from tailrace.declaration.data import Recency as Recency
    from tailrace.declaration.data import Reservoir as Reservoir
    from tailrace.declaration.data import Window as Window
    from tailrace.declaration.event import Event, EventTime, Key, UuidKey
    from tailrace.declaration.features import Buckets, Category, Cyclic, Flag, Number, Vector, feature
    from tailrace.declaration.gate import Gate
    from tailrace.declaration.label import Label
    from tailrace.declaration.online import Online
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.declaration.training import Training
    from tailrace.declaration.triggers import Age as Age
    from tailrace.declaration.triggers import Below as Below
    from tailrace.declaration.triggers import Drift as Drift
    from tailrace.declaration.triggers import Labels as Labels
    from tailrace.declaration.triggers import Schedule as Schedule
    from tailrace.declaration.triggers import Worthwhile as Worthwhile
    from tailrace.errors import DeclarationError, TailraceError
    from tailrace.inference.models.hooks import OnlineModule
    from tailrace.inference.releases.manifest import Refused
    from tailrace.inference.releases.signing import BadKey
    from tailrace.inference.serving.errors import BadEvent, NotFollowing, NotLoaded
    from tailrace.inference.serving.live_model import LiveModel
    from tailrace.streams.log.base import LogError, TopicMissing, Unreachable
    from tailrace.streams.log.url import BadUrl

__all__ = [
    "BadEvent",
    "BadKey",
    "BadUrl",
    "Buckets",
    "Category",
    "Cyclic",
    "DeclarationError",
    "Event",
    "EventTime",
    "Flag",
    "Gate",
    "Key",
    "Label",
    "LiveModel",
    "LogError",
    "NotFollowing",
    "NotLoaded",
    "Number",
    "Online",
    "OnlineModule",
    "Pipeline",
    "Refused",
    "TailraceError",
    "TopicMissing",
    "Training",
    "Unreachable",
    "UuidKey",
    "Vector",
    "data",
    "feature",
    "triggers",
]
__version__ = "0.1.0"

_HOMES = {
    "tailrace.declaration.event": ("Event", "EventTime", "Key", "UuidKey"),
    "tailrace.declaration.features": ("Buckets", "Category", "Cyclic", "Flag", "Number", "Vector", "feature"),
    "tailrace.declaration.gate": ("Gate",),
    "tailrace.declaration.label": ("Label",),
    "tailrace.declaration.online": ("Online",),
    "tailrace.inference.models.hooks": ("OnlineModule",),
    "tailrace.declaration.pipeline": ("Pipeline",),
    "tailrace.declaration.training": ("Training",),
    "tailrace.errors": ("DeclarationError", "TailraceError"),
    "tailrace.inference.releases.manifest": ("Refused",),
    "tailrace.inference.releases.signing": ("BadKey",),
    "tailrace.inference.serving.errors": ("BadEvent", "NotFollowing", "NotLoaded"),
    "tailrace.inference.serving.live_model": ("LiveModel",),
    "tailrace.streams.log.base": ("LogError", "TopicMissing", "Unreachable"),
    "tailrace.streams.log.url": ("BadUrl",),
}
_MODULES = ("data", "triggers")
_MOVED = {
    "data": ("History", "Recency", "Reservoir", "Window"),
    "triggers": ("Age", "Below", "Drift", "Labels", "Schedule", "Worthwhile"),
}
"""Names that moved into a module before 1.0; the old ones are removed in 1.0."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"tailrace.{name}")
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    for module, names in _MOVED.items():
        if name in names:
            warnings.warn(
                f"tailrace.{name} has moved: write `from tailrace import {module}` and `{module}.{name}`",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(import_module(f"tailrace.{module}"), name)
    raise AttributeError(f"module 'tailrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
