"""Encoder of a categorical field by the hashing trick (pure): each value becomes the index of a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from tailrace.inference.models.columns import Indices

CACHED_VALUES = 65_536  # per category: a larger cache is emptied, so that unbounded values cannot fill memory


class HashedColumn:
    """Encoder of one categorical field as bucket indices, 0 <= index < `buckets`; 0: missing."""

    def __init__(self, name: str, buckets: int) -> None:
        self.name, self.buckets = name, buckets
        self._get = attrgetter(name)
        self._cache = _Buckets(buckets)

    def encode(self, events: Sequence[Any]) -> Indices:
        if len(self._cache) > CACHED_VALUES:
            self._cache = _Buckets(self.buckets)
        return np.fromiter(map(self._cache.__getitem__, map(self._get, events)), np.int64, len(events))


class _Buckets(dict[str | int | None, int]):
    """Cache from value to bucket. Hashed by BLAKE2, because Python's own hash differs between processes."""

    def __init__(self, buckets: int) -> None:
        super().__init__({None: 0})
        self._hashed = buckets - 1

    def __missing__(self, value: str | int) -> int:
        digest = hashlib.blake2b(str(value).encode(errors="backslashreplace"), digest_size=8).digest()
        bucket = self[value] = 1 + int.from_bytes(digest, "little") % self._hashed
        return bucket
