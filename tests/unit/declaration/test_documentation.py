"""Documentation of declared classes: what `help()` shows."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest
from support.environment import unmeasured

from tailrace import Buckets, Cyclic, Gate, Label, Online, Training, Vector, data, triggers

DOCUMENTED = [
    Buckets,
    Cyclic,
    Gate,
    Label,
    Online,
    Training,
    Vector,
    *(getattr(data, name) for name in data.__all__),
    *(getattr(triggers, name) for name in triggers.__all__ if name not in ("Due", "Facts", "Trigger")),
]


@pytest.mark.parametrize("cls", DOCUMENTED, ids=lambda cls: cls.__name__)
def test_help_shows_every_field_with_its_text(cls: type) -> None:
    """Each field, an inherited one too, stands in `help()` with its type, its default and a text."""
    text = pydoc.plain(pydoc.render_doc(cls))
    lines = [line.removeprefix(" |").strip() for line in text.splitlines()]
    for name in cls.__struct_fields__:  # type: ignore[attr-defined]
        (at,) = (at for at, line in enumerate(lines) if line.startswith(f"{name}: "))
        assert len(lines[at + 1]) > 10, f"{cls.__name__}.{name} has no text"


def test_the_docstring_stays_in_front() -> None:
    """The summary comes first, then the fields."""
    assert (Training.__doc__ or "").startswith("Plan of a training run.")
    assert "\nwindow: int = 50000\n    Newest examples" in (Training.__doc__ or "")
    assert (Training(epochs=2).__doc__ or "") == Training.__doc__


def test_importing_a_declaration_parses_nothing() -> None:
    """The source is read when somebody asks for the text, not when a pipeline is imported."""
    code = "import tailrace; tailrace.Training, tailrace.triggers.Drift; "
    code += "import linecache; print(len(linecache.cache)); tailrace.Training.__doc__; print(len(linecache.cache) > 0)"
    done = subprocess.run([sys.executable, "-c", code], env=unmeasured(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True"]
