"""Tailrace: an event stream, a PyTorch model and late labels become predictions that stay fresh.

A pipeline is declared with the names below; the command line runs it. Each name is imported when it is first used, so
that `tailrace --help` need not wait for numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.declaration.data import History, Recency, Reservoir, Window
    from tailrace.declaration.event import Event, EventTime, Key
    from tailrace.declaration.features import Category, Cyclic, Flag, Number, Vector, feature
    from tailrace.declaration.gate import Gate
    from tailrace.declaration.label import Label
    from tailrace.declaration.online import Online
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.declaration.training import Training
    from tailrace.declaration.triggers import Age, Below, Drift, Labels, Schedule, Worthwhile
    from tailrace.errors import DeclarationError, TailraceError
    from tailrace.inference.serving.live_model import LiveModel

__all__ = [
    "Age",
    "Below",
    "Category",
    "Cyclic",
    "DeclarationError",
    "Drift",
    "Event",
    "EventTime",
    "Flag",
    "Gate",
    "History",
    "Key",
    "Label",
    "Labels",
    "LiveModel",
    "Number",
    "Online",
    "Pipeline",
    "Recency",
    "Reservoir",
    "Schedule",
    "TailraceError",
    "Training",
    "Vector",
    "Window",
    "Worthwhile",
    "feature",
]
__version__ = "0.1.0"

_HOMES = {
    "tailrace.declaration.data": ("History", "Recency", "Reservoir", "Window"),
    "tailrace.declaration.event": ("Event", "EventTime", "Key"),
    "tailrace.declaration.features": ("Category", "Cyclic", "Flag", "Number", "Vector", "feature"),
    "tailrace.declaration.gate": ("Gate",),
    "tailrace.declaration.label": ("Label",),
    "tailrace.declaration.online": ("Online",),
    "tailrace.declaration.pipeline": ("Pipeline",),
    "tailrace.declaration.training": ("Training",),
    "tailrace.declaration.triggers": ("Age", "Below", "Drift", "Labels", "Schedule", "Worthwhile"),
    "tailrace.errors": ("DeclarationError", "TailraceError"),
    "tailrace.inference.serving.live_model": ("LiveModel",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module 'tailrace' has no attribute {name!r}")
