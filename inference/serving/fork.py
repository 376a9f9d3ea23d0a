"""Notification of objects that own threads, locks or connections when the process was forked.

After `os.fork()` the child has the objects of its parent but only one thread. Locks that other threads held stay locked
for ever, and connections are shared with the parent. `register` an object to have its `after_fork` called in each
child, before any other code runs there.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """An object that must be repaired in a forked child."""

    def after_fork(self) -> None:
        """Replace locks and mark connections as unusable. Must neither block nor use the inherited ones."""


_registered: WeakSet[ForkAware] = WeakSet()


def register(thing: ForkAware) -> None:
    """Call `after_fork` of this object in every child, as long as the object lives."""
    _registered.add(thing)


def _notify() -> None:
    for thing in list(_registered):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_notify)
