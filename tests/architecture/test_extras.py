"""Extras: optional packages stay optional, and their absence is one clear error."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tailrace.backtest.baselines.river import check_river
from tailrace.errors import TailraceError, error_line

ROOT = Path(__file__).parents[2]
FOLDERS = ("streams", "inference", "retrain", "monitoring", "tailrace")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED_FOR = {"faust-streaming", "kafka-python", "prometheus-client", "river", "torch"}


def names(requirements: list[str]) -> set[str]:
    """The package names of these requirements."""
    return {Requirement(requirement).name for requirement in requirements}


def importers(package: str) -> set[str]:
    """The product files that import a package, anywhere in them."""
    found = set()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(module.partition(".")[0] == package for module in modules):
                found.add(str(path.relative_to(ROOT)))
    return found


def test_river_is_imported_by_the_baselines_alone() -> None:
    """River is optional: one module needs it."""
    assert importers("river") == {"tailrace/backtest/baselines/river.py"}
    assert "river" not in names(PROJECT["dependencies"])


def test_one_extra_holds_everything() -> None:
    """`tailrace[all]` holds every optional package of the other extras for users, with the same bounds."""
    extras = PROJECT["optional-dependencies"]
    everything = {Requirement(requirement).name: Requirement(requirement).specifier for requirement in extras["all"]}
    assert set(everything) >= ASKED_FOR
    for extra in ("faust", "parquet", "river"):
        for requirement in map(Requirement, extras[extra]):
            assert everything[requirement.name] == requirement.specifier, extra
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert everything.get(requirement.name, requirement.specifier) == requirement.specifier


def test_without_river_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backtest with baselines says how to install River, in one line."""
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(TailraceError) as missing:
        check_river()
    line, _ = error_line(missing.value)
    assert line == "`tailrace backtest --baselines` needs River: run `pip install 'tailrace[river]'`"
