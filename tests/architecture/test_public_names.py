"""The public names are pinned: the API grows on purpose."""

from __future__ import annotations

import tailrace
from tailrace.cli import main as cli

NAMES = {
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
    assert {name for names in tailrace._HOMES.values() for name in names} == NAMES
    assert not hasattr(tailrace, "Nothing")


def test_commands() -> None:
    """The command line has these commands."""
    assert {
        command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands
    } == COMMANDS
    nested = {group.name: group.typer_instance for group in cli.app.registered_groups}
    groups = {name: {command.name for command in app.registered_commands} for name, app in nested.items() if app}
    assert groups == GROUPS
