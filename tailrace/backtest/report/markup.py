"""HTML and SVG elements from Python values (pure). All text is escaped unless its type is `Markup`."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already and is inserted unchanged."""


def tag(name: str, /, *inside: str, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Attributes that are None or False are left out; True gives an attribute without a value. In names, `_` becomes `-`,
    and a trailing `_` is dropped (`class_`, `for_`).
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _VOID and not inside:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*inside)}</{name}>")


def join(*parts: str) -> Markup:
    """Concatenate parts; parts that are not `Markup` are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


_VOID = frozenset(("br", "hr", "input", "meta"))


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
