"""Field documentation (pure): the text below each field of a declared class reaches its `__doc__`, and so `help()`.

Python keeps no string that stands below a field. The source is therefore parsed, but only when somebody reads
`__doc__`: importing a declaration costs nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import Any, SupportsIndex, TypeVar

T = TypeVar("T", bound=type)


class FieldDocs(str):
    """Value of a class's `__doc__`: the docstring, completed with the documentation of the fields when it is read.

    A reader of the attribute gets the complete text from `__get__`. pydoc takes the value from the class's dictionary
    instead, without `__get__`, and calls `expandtabs` before it shows the text.
    """

    _owner: type

    def __get__(self, instance: object, owner: type | None = None) -> str:
        """The complete text; the docstring alone where the source is not available."""
        return _complete(self._owner, str(self))

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        """The complete text, with spaces for tabs."""
        return _complete(self._owner, str(self)).expandtabs(tabsize)


def with_field_docs(cls: T) -> T:
    """Class decorator: append the documentation of the fields, inherited ones included, to the class's `__doc__`."""
    docs = FieldDocs(cls.__dict__.get("__doc__") or "")
    docs._owner = cls
    cls.__doc__ = docs
    return cls


@cache
def _complete(cls: type, docstring: str) -> str:
    summary = inspect.cleandoc(docstring)
    fields = "".join(_lines(name, text) for name, text in _inherited(cls).items())
    return f"{summary}\n\nFields:\n\n{fields.rstrip()}" if fields else summary


def _inherited(cls: type) -> dict[str, str]:
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
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
