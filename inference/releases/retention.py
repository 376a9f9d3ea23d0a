"""Retention of releases (pure): the releases that the next publication removes from the models topic."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from tailrace.inference.releases.manifest import Manifest


def outdated_releases(
    releases: Mapping[int, Manifest],
    newest: int,
    *,
    keep: int,
    aliased: AbstractSet[int],
    pinned: AbstractSet[int],
) -> list[Manifest]:
    """Return the releases to remove once version `newest` is published, ordered by version.

    `releases` maps each version to its verified manifest; it may lack `newest`. Kept are the last `keep` versions,
    `newest` among them; the versions that an alias names (`aliased`); the bases of both, which are the releases whose
    weights their training started from; and the versions that a run under way has started from (`pinned`).
    """
    kept = set(sorted({*releases, newest})[-keep:]) | aliased
    kept |= {releases[version].base for version in kept if version in releases} | pinned
    return [manifest for version, manifest in sorted(releases.items()) if version not in kept]
