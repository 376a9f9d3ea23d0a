"""Tailrace: an event stream, a PyTorch model and late labels become predictions that stay fresh.

A pipeline is declared with the names below; the command line runs it. Each name is imported when it is first used, so
that `tailrace --help` need not wait for numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.features import Category, Cyclic, Flag, Number, Vector, feature
    from inference.live import LiveModel
    from retrain.gate import Gate
    from retrain.plan import Training
    from retrain.rhythm import Online
    from retrain.selecting import History, Recency, Reservoir, Window
    from retrain.triggers import Age, Below, Drift, Labels, Schedule, Worthwhile
    from streams.events import DeclarationError, Event, EventTime, Key
    from tailrace.pipeline import Label, Pipeline

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
    "Training",
    "Vector",
    "Window",
    "Worthwhile",
    "feature",
]
__version__ = "0.1.0"

_HOMES = {
    "inference.features": ("Category", "Cyclic", "Flag", "Number", "Vector", "feature"),
    "inference.live": ("LiveModel",),
    "retrain.gate": ("Gate",),
    "retrain.plan": ("Training",),
    "retrain.rhythm": ("Online",),
    "retrain.selecting": ("History", "Recency", "Reservoir", "Window"),
    "retrain.triggers": ("Age", "Below", "Drift", "Labels", "Schedule", "Worthwhile"),
    "streams.events": ("DeclarationError", "Event", "EventTime", "Key"),
    "tailrace.pipeline": ("Label", "Pipeline"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module 'tailrace' has no attribute {name!r}")
