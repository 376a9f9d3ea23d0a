"""Notifications of a live model: a swap of releases, and the refusal of one."""

from __future__ import annotations

from typing import NamedTuple


class Swap(NamedTuple):
    """A release took over from another.

    `pause_s`: seconds for which the swap delayed the scoring thread. `load_s`: seconds of background work before it.
    `trained_through`: time of the newest event that the new release has learned, unix seconds; 0: none.
    """

    old: int
    new: int
    pause_s: float
    load_s: float
    trained_through: float


class RefusedRelease(NamedTuple):
    """A release was refused. `reason` is one of `releases.manifest.REASONS`, `serving` the release that serves on."""

    version: int
    reason: str
    detail: str
    serving: int
