"""Metadata that the join stores with its committed positions (pure)."""

from __future__ import annotations

import msgspec

from tailrace.streams.log.codec import UNDECODABLE

_encode = msgspec.json.Encoder().encode


class Bookmark(msgspec.Struct, omit_defaults=True):
    """Metadata of a commit, by topic: the offset of the oldest record still held and the newest time read.

    The bookmark of the predictions also holds the watermark, and `waits`: pairs (offset, wait in seconds); each wait
    applies to predictions from its offset on. Times are unix seconds, None before the first record.
    """

    oldest: int
    newest: float | None = None
    watermark: float | None = None
    waits: list[tuple[int, float]] = []

    def text(self) -> str:
        """Encode as a metadata string."""
        return _encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> Bookmark | None:
        """Decode a metadata string; None when it holds no bookmark."""
        try:
            return msgspec.json.decode(text, type=cls)
        except UNDECODABLE:
            return None
