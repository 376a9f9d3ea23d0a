"""The model registry as a fold over records."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from tailrace.declaration.task import Kind, Task
from tailrace.inference.releases.manifest import (
    Golden,
    Manifest,
    Release,
    alias_record,
    pack,
    release_records,
    serialise,
    tombstones,
)
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.signing import SigningKey
from tailrace.streams.log.records import Out, Record

KEY = SigningKey.generate()


def release(version: int, size: int = 300_000) -> Release:
    manifest = Manifest(
        version=version,
        parent=version - 1,
        created=0.0,
        trained_through=0.0,
        examples=1,
        code_digest="",
        seed=0,
        reason="labels",
        features="",
        task=Task(Kind.BINARY),
        golden=Golden(),
    )
    return pack(manifest, serialise({"w": torch.full((size,), float(version))}), KEY)


ONE, TWO = release(1), release(2)


def records(*outs: Out) -> list[Record]:
    return [Record("m", 0, offset, 0, out.key, out.value) for offset, out in enumerate(outs)]


def test_a_payload_is_there_when_all_its_records_are() -> None:
    """Chunks and manifest may come in any order; before the last of them there is no payload."""
    for order in itertools.permutations(release_records(ONE, "m")):
        registry = Registry()
        *first, last = records(*order)
        registry.apply(first)
        assert registry.payload(1) is None
        registry.apply([last])
        assert registry.payload(1) == ONE.payload
        assert registry.span(1) == (0, len(order))


def test_releases_and_aliases_are_folded() -> None:
    """The newest alias record counts, its history is kept, the latest version is known."""
    registry = Registry()
    aliases = [alias_record("m", "champion", v, "ada", "gate", float(v)) for v in (1, 2, 1)]
    registry.apply(records(*release_records(ONE, "m"), *release_records(TWO, "m"), *aliases))
    assert (registry.latest, sorted(registry.releases)) == (2, [1, 2])
    assert registry.aliases["champion"].version == 1
    assert [change.value.version for change in registry.history if change.value] == [1, 2, 1]
    registry.apply(records(Out("m", b"alias/champion", None)))
    assert registry.aliases == {}


def test_tombstones_remove_a_release() -> None:
    """Tombstones remove manifest and chunks."""
    registry = Registry()
    registry.apply(records(*release_records(ONE, "m"), *tombstones(1, range(3), "m")))
    assert (registry.releases, registry.held, registry.chunks(1), registry.span(1)) == ({}, [], [], (0, 0))
    assert registry.latest == 0


def test_forgotten_chunks_free_memory_and_can_be_read_again() -> None:
    """After forgetting there is no payload; applying the records again brings it back."""
    registry = Registry()
    registry.apply(records(*release_records(ONE, "m")))
    assert registry.held == [1]
    registry.forget_payload(1)
    assert (registry.held, registry.payload(1), sorted(registry.releases)) == ([], None, [1])
    registry.apply(records(*release_records(ONE, "m")))
    assert registry.payload(1) == ONE.payload


def test_memory_is_bounded_whoever_writes() -> None:
    """The newest chunks are held up to the limit, which may be 0; the numbers of all chunks are known."""
    flood = [Out("m", b"release/%012d/chunk/0" % (10**11 + n), bytes(1_000)) for n in range(100)]
    registry, keeper = Registry(hold=2_500), Registry(hold=0)
    for one in (registry, keeper):
        one.apply(records(*release_records(ONE, "m"), *flood))
    assert (registry.held, keeper.held) == ([10**11 + 98, 10**11 + 99], [])
    assert keeper.payload(1) is registry.payload(1) is None
    assert (keeper.chunks(1), keeper.span(1)) == ([0, 1, 2], (0, 4))
    assert keeper.releases.keys() == {1}


def test_a_chunk_that_comes_again_is_held_once() -> None:
    """A repeated chunk counts once against the memory limit."""
    registry = Registry(hold=1_000)
    registry.apply(records(*[Out("m", b"release/00000001/chunk/0", bytes(600))] * 5))
    registry.apply(records(Out("m", b"release/00000002/chunk/0", bytes(400))))
    assert registry.held == [1, 2]
    registry.apply(records(Out("m", b"release/00000001/chunk/0", None)))
    registry.apply(records(Out("m", b"release/00000003/chunk/0", bytes(600))))
    assert registry.held == [2, 3]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"", b""),
        (b"release/1/manifest", b"{}"),
        (b"release/00000001/manifest", b"{}"),
        (b"release/00000002/manifest", ONE.signed),
        (b"release/00000001/chunk/x", b""),
        (b"release/000000001/chunk/0", b""),
        (b"release/00000001/chunk/00", b""),
        (b"alias/champion", b"{"),
        (b"alias/champion", b'{"version":"1"}'),
        (b"alias/\xff", b"{}"),
    ],
)
def test_garbage_is_counted_and_ignored(key: bytes | None, value: bytes) -> None:
    """Invalid records are counted and change nothing else."""
    registry = Registry()
    registry.apply([Record("m", 0, 0, 0, key, value)])
    assert (registry.ignored, registry.releases, registry.aliases, registry.held) == (1, {}, {}, [])


def test_any_suffix_that_compaction_leaves_gives_the_same_state() -> None:
    """Folding only the newest record of each key, as a compacted topic keeps them, gives what the history gives."""
    history = [
        *release_records(ONE, "m"),
        alias_record("m", "champion", 1, "a", "gate", 1.0),
        *release_records(TWO, "m"),
        alias_record("m", "champion", 2, "a", "gate", 2.0),
        *tombstones(1, range(3), "m"),
        *release_records(TWO, "m"),
    ]
    whole, compacted = Registry(), Registry()
    whole.apply(records(*history))
    newest = {record.key: record for record in records(*history)}
    compacted.apply(sorted(newest.values(), key=lambda record: record.offset))
    assert (whole.releases.keys(), whole.aliases) == (compacted.releases.keys(), compacted.aliases)
    assert whole.payload(2) == compacted.payload(2) == TWO.payload


def test_random_bytes_never_break_the_fold() -> None:
    """Random keys and values raise no error."""
    source = random.Random(7)
    parts = [b"release/", b"alias/", b"00000001", b"/", b"chunk", b"manifest", b"0", b"\x00", b"champion"]
    keys = [b"".join(source.choices(parts, k=source.randrange(6))) for _ in range(2000)]
    registry = Registry()
    registry.apply(Record("m", 0, i, 0, key, source.randbytes(20)) for i, key in enumerate(keys))
    assert registry.ignored > 1000
