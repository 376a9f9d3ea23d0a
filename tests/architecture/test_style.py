"""Names and prose of the product code keep to the rules in CONTRIBUTING.md. A failure lists the offenders."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("streams", "inference", "retrain", "monitoring", "tailrace")
VAGUE = re.compile(r"(What|How|Whether|Who|Where|When|Of|The same)\b")
FIELD_TERMS = {
    "averaging",
    "batching",
    "encoding",
    "logging",
    "sampling",
    "scheduling",
    "scoring",
    "serving",
    "signing",
    "stopping",
    "testing",
    "training",
    "tuning",
}
LONGEST = 300  # lines
# Files above it, each with the reason for being one file.
LONG_FILES: dict[str, str] = {
    "streams/join/state.py": "the join's state machine",
    "streams/log/base.py": "the log port",
    "streams/runtime/runner.py": "one loop, with what follows from each failure in it",
    "tailrace/backtest/simulation.py": "one policy on one clock",
}


def files() -> Iterator[Path]:
    """The modules of the five folders, each once."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents):
                yield path


def definitions(path: Path) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The module itself, and its classes and functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def where(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_docstrings_stand_alone() -> None:
    """At most 2 % of the docstrings begin with a word that leaves their subject open."""
    count, vague = 0, []
    for path in files():
        for node in definitions(path):
            text = ast.get_docstring(node)
            if text is not None:
                count += 1
                if VAGUE.match(text):
                    first = text.splitlines()[0]
                    vague.append(f"{where(path, getattr(node, 'lineno', 1))}: {first}")
    listed = "\n".join(vague)
    assert len(vague) <= 0.02 * count, f"{len(vague)} of {count} docstrings:\n{listed}"


def test_modules_are_named_by_nouns() -> None:
    """At most four modules and packages have the name of an activity that is not a term of the field."""
    names = {path.parent if path.name == "__init__.py" else path for path in files()}
    gerunds = [where(path) for path in sorted(names) if _gerund(path.stem)]
    assert len(gerunds) <= 4, "\n".join(gerunds)


def _gerund(stem: str) -> bool:
    last = stem.rpartition("_")[2]
    return last.endswith("ing") and last not in FIELD_TERMS and last not in {"string", "ring", "thing"}


def test_a_class_name_has_one_meaning() -> None:
    """At most five names belong to more than one public class."""
    places = defaultdict[str, list[str]](list)
    for path in files():
        for node in definitions(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(where(path, node.lineno))
    repeated = [f"{name}: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]
    assert len(repeated) <= 5, f"{len(repeated)} names\n" + "\n".join(repeated)


def test_long_files_have_a_reason() -> None:
    """Each file above 300 lines is listed here with a reason, and the list names no other file."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files()}
    long = {name: length for name, length in lengths.items() if length > LONGEST}
    unexplained = {name: length for name, length in long.items() if not LONG_FILES.get(name)}
    assert not unexplained, "\n".join(f"{name}: {length} lines" for name, length in unexplained.items())
    assert set(LONG_FILES) <= set(long), "not longer than the limit any more"
