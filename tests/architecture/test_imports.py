"""Imports: no cycle between files, and no torch where a role can do without it."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
NEED_TORCH = (
    "tailrace.inference.models",
    "tailrace.inference.serving",
    "tailrace.retrain.training",
    "tailrace.retrain.online",
    "tailrace.retrain.worker",
    "tailrace.retrain.control.rebuild",  # trains in its own process: only `tailrace models rebuild` imports it
    "tailrace.backtest.simulation",
)
# A module that is None in sys.modules cannot be imported, and a module that fails to import leaves nothing behind.
IMPORT_ALL_WITHOUT_TORCH = """
import importlib, sys
sys.modules["torch"] = None
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == "torch" or (error.name or "").startswith("torch."):
            print(name)
        elif (error.name or "").startswith("tailrace"):
            raise
"""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The imports of the package's modules, without those for type checkers alone."""
    return grimp.build_graph("tailrace", exclude_type_checking_imports=True, cache_dir=None)


def test_no_file_imports_itself_through_others(graph: grimp.ImportGraph) -> None:
    """There is no cycle of imports between files, imports inside functions included."""
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    cycles: list[list[str]] = []
    while cycle := _cycle(imports):
        cycles.append(cycle)
        imports[cycle[1]].discard(cycle[0])
    assert not cycles, "\n".join(" <- ".join(cycle) for cycle in cycles)


def _cycle(imports: dict[str, set[str]]) -> list[str]:
    """One cycle, each module imported by the next; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_only_the_parts_that_compute_with_torch_import_it(graph: grimp.ImportGraph) -> None:
    """Each other module can be imported in an environment without torch, whatever it imports in turn."""
    names = sorted(name for name in graph.modules if not name.endswith("__main__"))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_WITHOUT_TORCH],
        cwd=ROOT, input="\n".join(names), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    needing = done.stdout.split()
    assert needing, "torch is imported somewhere"
    assert [name for name in needing if not name.startswith(NEED_TORCH)] == []
