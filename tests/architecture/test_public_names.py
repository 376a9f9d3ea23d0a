"""The public names are pinned: the API grows on purpose."""

from __future__ import annotations

import importlib
import pydoc
import sys

import pytest

import tailrace
from tailrace.cli import main as cli

NAMES = {
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
}
MODULES = {
    "data": {"History", "Recency", "Reservoir", "Window"},
    "triggers": {
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
    },
}
MOVED = {
    "data": {"History", "Recency", "Reservoir", "Window"},
    "triggers": {"Age", "Below", "Drift", "Labels", "Schedule", "Worthwhile"},
}
COMMANDS = {
    "backtest",
    "compare",
    "console",
    "demo",
    "doctor",
    "explain",
    "init",
    "joiner",
    "retrainer",
    "run",
    "send",
    "tail",
    "worker",
}
GROUPS = {
    "models": {"ls", "show", "verify", "rebuild", "promote", "rollback"},
    "dlq": {"ls", "show", "replay"},
    "keys": {"new", "show"},
    "config": {"show"},
}


def test_names_of_the_package() -> None:
    """`from tailrace import ...` offers these names, and each can be imported."""
    assert set(tailrace.__all__) == NAMES
    assert all(getattr(tailrace, name) is not None for name in NAMES)
    assert {name for names in tailrace._HOMES.values() for name in names} | set(MODULES) == NAMES
    assert set(dir(tailrace)) >= NAMES
    assert not hasattr(tailrace, "Nothing")


@pytest.mark.parametrize("module", MODULES)
def test_names_of_the_public_modules(module: str) -> None:
    """`tailrace.triggers` and `tailrace.data` offer these names, and `help()` describes each of them."""
    public = importlib.import_module(f"tailrace.{module}")
    assert set(public.__all__) == MODULES[module]
    text = pydoc.plain(pydoc.render_doc(public))
    assert all(f"class {name}" in text for name in MODULES[module])


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in MOVED.items() for name in sorted(names)]
)
def test_moved_names_go_on_working(module: str, name: str) -> None:
    """The old place gives the same class, and a DeprecationWarning that names the new one."""
    with pytest.warns(DeprecationWarning, match=rf"`from tailrace import {module}` and `{module}\.{name}`"):
        old = getattr(tailrace, name)
    assert old is getattr(importlib.import_module(f"tailrace.{module}"), name)


def test_the_old_module_of_faust_goes_on_working() -> None:
    """`tailrace.faust` gives the same function, and a DeprecationWarning that names the new module."""
    sys.modules.pop("tailrace.faust", None)
    with pytest.warns(DeprecationWarning, match=r"from tailrace\.contrib\.faust import attach"):
        old = importlib.import_module("tailrace.faust")
    assert old.attach is importlib.import_module("tailrace.contrib.faust").attach


def test_commands() -> None:
    """The command line has these commands."""
    assert {
        command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands
    } == COMMANDS
    nested = {group.name: group.typer_instance for group in cli.app.registered_groups}
    groups = {name: {command.name for command in app.registered_commands} for name, app in nested.items() if app}
    assert groups == GROUPS
