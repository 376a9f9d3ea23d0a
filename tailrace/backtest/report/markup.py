"""HTML and SVG from Python values (pure). All text is escaped; what is markup already says so by its type."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup: it is put in as it is."""


def tag(name: str, /, *inside: str, **attributes: str | float | bool | None) -> Markup:
    """An element. Attributes that are None or False are left out, True stands alone; `_` is written `-`, and one at
    the end falls (`class_`, `for_`)."""
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _VOID and not inside:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*inside)}</{name}>")


def join(*parts: str) -> Markup:
    """Parts one after the other, escaped where they are no markup."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


_VOID = frozenset(("br", "hr", "input", "meta"))


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
