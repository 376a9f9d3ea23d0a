"""Field documentation (pure): the text below each field of a declared class reaches its `__doc__`, and so `help()`.

Python keeps no string that stands below a field. The source is therefore parsed, but only when somebody reads
`__doc__`: importing a declaration costs nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


class FieldDocs:
    """Descriptor that takes the place of a class's `__doc__`: its docstring, then the documentation of each field."""

    def __init__(self, summary: str) -> None:
        self._summary = inspect.cleandoc(summary)
        self._complete: str | None = None

    def __get__(self, instance: object, owner: type) -> str:
        """The complete text; the docstring alone where the source is not available."""
        if self._complete is None:
            fields = "".join(_lines(name, text) for name, text in _inherited(owner).items())
            self._complete = f"{self._summary}\n\nFields:\n\n{fields.rstrip()}" if fields else self._summary
        return self._complete


def with_field_docs(cls: T) -> T:
    """Class decorator: append the documentation of the fields, inherited ones included, to the class's `__doc__`."""
    cls.__doc__ = FieldDocs(cls.__dict__.get("__doc__") or "")  # type: ignore[assignment]
    return cls


def _inherited(cls: type) -> dict[str, str]:
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__annotations__" in vars(base):
            docs |= _fields(base)
    return docs


def _fields(cls: type) -> dict[str, str]:
    """Map "name: type = default" to the text below each field that the class itself declares."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body: list[Any] = getattr(tree.body[0], "body", [])
    docs = {}
    for field, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and not ast.unparse(field.annotation).startswith("ClassVar"):
            docs[ast.unparse(field)] = _text(below)
    return docs


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _lines(declaration: str, text: str) -> str:
    return f"{declaration}\n" + (textwrap.indent(text, "    ") + "\n" if text else "")
