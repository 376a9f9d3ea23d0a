"""Releases that a publication removes from the registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from support.publishing import manifest

from tailrace.inference.releases.manifest import Manifest
from tailrace.inference.releases.retention import outdated_releases


def releases(versions: Iterable[int], bases: Mapping[int, int] | None = None) -> dict[int, Manifest]:
    """Manifests by version; `bases` maps a version to the release that its training started from."""
    from_base = {} if bases is None else bases
    return {
        version: msgspec.structs.replace(manifest(), version=version, base=from_base.get(version, 0))
        for version in versions
    }


def outdated(
    found: dict[int, Manifest],
    newest: int,
    keep: int = 3,
    aliased: Iterable[int] = (),
    pinned: Iterable[int] = (),
) -> list[int]:
    removed = outdated_releases(found, newest, keep=keep, aliased=set(aliased), pinned=set(pinned))
    return [manifest.version for manifest in removed]


def test_the_last_releases_are_kept() -> None:
    """The new version counts as one of the last, whether its manifest is given or not."""
    assert outdated(releases(range(1, 6)), 6) == [1, 2, 3]
    assert outdated(releases(range(1, 7)), 6) == [1, 2, 3]
    assert outdated(releases([1, 2]), 3) == []


def test_releases_with_an_alias_are_kept() -> None:
    """An alias protects an old release; the alias of a release that does not exist protects nothing else."""
    assert outdated(releases(range(1, 6)), 6, aliased=[1, 0, 99]) == [2, 3]


def test_bases_are_kept() -> None:
    """The base of a release stays while the release is one of the last or has an alias."""
    found = releases(range(1, 6), {5: 2, 3: 1})
    assert outdated(found, 6) == [1, 3]
    assert outdated(found, 6, aliased=[3]) == []


def test_the_base_of_a_removed_release_is_removed() -> None:
    """A release that is removed does not keep its base."""
    assert outdated(releases(range(1, 6), {3: 1}), 6) == [1, 2, 3]


def test_releases_that_a_run_started_from_are_kept() -> None:
    """A pinned release is kept, its base is not."""
    assert outdated(releases(range(1, 6), {3: 1}), 6, pinned=[3]) == [1, 2]
