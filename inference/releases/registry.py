"""The model registry (pure): a fold over the records of the models topic. Nothing in it has been verified."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tailrace.inference.releases.manifest import Alias, Limits, Refused, parse
from tailrace.streams.log.records import Record

_KEY = re.compile(  # one way to write each version and chunk: else a removal would miss the other ways
    rb"release/(\d{8}|[1-9]\d{8,11})/(?:(manifest)|chunk/(0|[1-9]\d{0,6}))|alias/([A-Za-z0-9_.-]{1,100})"
)
_HOLD = Limits().payload_bytes


class RawRelease(NamedTuple):
    """A manifest record's value, as it came; `offset` is where it lies."""

    version: int
    signed: bytes
    offset: int


class AliasChange(NamedTuple):
    """An alias was set; `value` is None when it was removed."""

    alias: str
    value: Alias | None
    offset: int


class Registry:
    """Apply records in order. Records that make no sense are counted in `ignored`.

    Of the chunks at most `hold` bytes are held, those that came last, until `forget_payload`: anybody may have written
    them. `span` tells where to read them again.
    """

    def __init__(self, history: int = 1000, hold: int = _HOLD) -> None:
        self.releases: dict[int, RawRelease] = {}
        self.aliases: dict[str, Alias] = {}
        self.history: deque[AliasChange] = deque(maxlen=history)
        self.ignored = 0
        self._hold, self._bytes = hold, 0
        self._held: dict[int, dict[int, bytes]] = {}  # chunks; the version that got one last stands last
        self._offsets: dict[int, dict[int, int]] = {}  # of all chunks, held or not

    @property
    def latest(self) -> int:
        """The newest version with a manifest; 0 when there is none."""
        return max(self.releases, default=0)

    @property
    def held(self) -> list[int]:
        """The versions of which chunks are in memory; the one that got a chunk last stands last."""
        return list(self._held)

    def apply(self, records: Iterable[Record]) -> None:
        """Fold records of the models topic, in the order of their offsets."""
        for record in records:
            found = _KEY.fullmatch(record.key or b"")
            if found is None:
                self.ignored += 1
            elif found[4]:
                self._alias(found[4].decode(), record)
            elif found[2]:
                self._manifest(int(found[1]), record)
            else:
                self._chunk(int(found[1]), int(found[3]), record)

    def payload(self, version: int) -> bytes | None:
        """The payload's chunks put together; None until the manifest and all of them are there."""
        release = self.releases.get(version)
        if release is None:
            return None
        chunks, count = self._held.get(version, {}), parse(release.signed)[1].chunks
        if len(chunks) < count or any(n not in chunks for n in range(count)):
            return None
        return b"".join(chunks[n] for n in range(count))

    def forget_payload(self, version: int) -> None:
        """Free the chunks of a version."""
        self._bytes -= sum(map(len, self._held.pop(version, {}).values()))

    def chunks(self, version: int) -> list[int]:
        """The numbers of a version's chunks in the topic, whatever its manifest says."""
        return sorted(self._offsets.get(version, {}))

    def span(self, version: int) -> tuple[int, int]:
        """Between which offsets [start, end) a version's records lie; (0, 0) when there are none."""
        offsets = list(self._offsets.get(version, {}).values())
        if version in self.releases:
            offsets.append(self.releases[version].offset)
        return (min(offsets), max(offsets) + 1) if offsets else (0, 0)

    def _alias(self, alias: str, record: Record) -> None:
        try:
            value = None if record.value is None else msgspec.json.decode(record.value, type=Alias)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.ignored += 1
            return
        if value is None:
            self.aliases.pop(alias, None)
        else:
            self.aliases[alias] = value
        self.history.append(AliasChange(alias, value, record.offset))

    def _manifest(self, version: int, record: Record) -> None:
        if record.value is None:
            self.releases.pop(version, None)
            self._offsets.pop(version, None)
            self.forget_payload(version)
            return
        try:
            named = parse(record.value)[1].version
        except Refused:
            named = -1
        if named != version:
            self.ignored += 1
            return
        self.releases[version] = RawRelease(version, record.value, record.offset)

    def _chunk(self, version: int, n: int, record: Record) -> None:
        chunks = self._held.pop(version, {})
        self._bytes -= len(chunks.pop(n, b""))
        if record.value is None:
            self._offsets.get(version, {}).pop(n, None)
        else:
            self._offsets.setdefault(version, {})[n] = record.offset
            self._bytes += len(record.value)
            chunks[n] = record.value
        if chunks:
            self._held[version] = chunks
        while self._bytes > self._hold:
            self.forget_payload(next(iter(self._held)))
