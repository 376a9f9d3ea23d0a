"""Errors: everything that Tailrace raises on purpose is a TailraceError."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import tailrace
from tailrace import TailraceError

EXTRAS = frozenset({"tailrace.faust"})  # a deprecated alias, which warns when it is imported
PRIVATE = {"tailrace.streams.log.codec._Bad": "raised and caught inside the codec: a bad record becomes a value"}


def modules() -> Iterator[ModuleType]:
    """Every module of the package that can be imported without running a command."""
    for found in pkgutil.walk_packages(tailrace.__path__, "tailrace."):
        if found.name not in EXTRAS and not found.name.endswith(".__main__"):
            yield importlib.import_module(found.name)


def errors() -> set[type[BaseException]]:
    """Every exception class that one of the modules defines."""
    return {
        thing
        for module in modules()
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__ == module.__name__
    }


def test_every_error_is_a_tailrace_error() -> None:
    """One `except TailraceError` catches all of them; private signals are the exceptions, each with its reason."""
    others = {f"{error.__module__}.{error.__qualname__}" for error in errors() if not issubclass(error, TailraceError)}
    assert others <= set(PRIVATE)


def test_every_error_says_what_it_means() -> None:
    """Each public one has a docstring of its own."""
    public = {error for error in errors() if issubclass(error, TailraceError)}
    assert [error for error in public if not error.__dict__.get("__doc__")] == []


@pytest.mark.parametrize("name", ["BadEvent", "BadKey", "BadUrl", "NotFollowing", "NotLoaded", "Refused"])
def test_errors_of_a_live_model_are_public(name: str) -> None:
    """Each error that `LiveModel` raises can be caught by a name of the package."""
    assert issubclass(getattr(tailrace, name), TailraceError)
    assert name in tailrace.__all__
