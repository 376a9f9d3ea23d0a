"""Model registry (pure): a fold over the records of the models topic. Its content is not verified."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tailrace.inference.releases.manifest import Alias, Limits, Refused, parse
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.records import Record

_KEY = re.compile(  # one spelling per version and chunk: otherwise a removal would miss the others
    rb"release/(\d{8}|[1-9]\d{8,11})/(?:(manifest)|chunk/(0|[1-9]\d{0,6}))|alias/([A-Za-z0-9_.-]{1,100})"
)
_HOLD = Limits().payload_bytes


class RawRelease(NamedTuple):
    """Unverified value of a manifest record, and its offset in the models topic."""

    version: int
    signed: bytes
    offset: int


class AliasChange(NamedTuple):
    """An alias was set, or removed if `value` is None."""

    alias: str
    value: Alias | None
    offset: int


class Registry:
    """Releases and aliases of the models topic, from its records in the order of their offsets.

    `ignored` counts invalid records. Chunks are not trusted either, so at most `hold` bytes of them are kept in memory,
    the newest, until `forget_payload`; `span` gives the offsets from which they can be read again. `history` keeps the
    newest 1,000 alias changes (argument `history`).
    """

    def __init__(self, history: int = 1000, hold: int = _HOLD) -> None:
        self.releases: dict[int, RawRelease] = {}
        self.aliases: dict[str, Alias] = {}
        self.history: deque[AliasChange] = deque(maxlen=history)
        self.ignored = 0
        self._hold, self._bytes = hold, 0
        self._held: dict[int, dict[int, bytes]] = {}  # version -> chunks; most recent version last
        self._offsets: dict[int, dict[int, int]] = {}  # version -> offsets of all its chunks, held or not

    @property
    def latest(self) -> int:
        """The highest version with a manifest; 0 if there is none."""
        return max(self.releases, default=0)

    @property
    def held(self) -> list[int]:
        """The versions with chunks in memory, ordered by their newest chunk."""
        return list(self._held)

    def apply(self, records: Iterable[Record]) -> None:
        """Apply records of the models topic, in the order of their offsets."""
        for record in records:
            match = _KEY.fullmatch(record.key or b"")
            if match is None:
                self.ignored += 1
            elif match[4]:
                self._alias(match[4].decode(), record)
            elif match[2]:
                self._manifest(int(match[1]), record)
            else:
                self._chunk(int(match[1]), int(match[3]), record)

    def payload(self, version: int) -> bytes | None:
        """The payload, assembled from its chunks.

        None without the manifest, and if a chunk is not in memory, although the topic may hold it: see `span`.
        """
        release = self.releases.get(version)
        if release is None:
            return None
        chunks, count = self._held.get(version, {}), parse(release.signed)[1].chunks
        if len(chunks) < count or any(n not in chunks for n in range(count)):
            return None
        return b"".join(chunks[n] for n in range(count))

    def forget_payload(self, version: int) -> None:
        """Free the memory of a version's chunks."""
        self._bytes -= sum(map(len, self._held.pop(version, {}).values()))

    def chunks(self, version: int) -> list[int]:
        """Numbers of the chunks that the topic holds of a version, independent of its manifest."""
        return sorted(self._offsets.get(version, {}))

    def span(self, version: int) -> tuple[int, int]:
        """Offsets [start, end) between which the records of a version lie; (0, 0) if there are none."""
        offsets = list(self._offsets.get(version, {}).values())
        if version in self.releases:
            offsets.append(self.releases[version].offset)
        return (min(offsets), max(offsets) + 1) if offsets else (0, 0)

    def _alias(self, alias: str, record: Record) -> None:
        try:
            value = None if record.value is None else msgspec.json.decode(record.value, type=Alias)
        except UNDECODABLE:
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
