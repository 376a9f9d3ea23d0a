"""Releases that an earlier version published are still verified and served."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
import support

from tailrace import Category, Event, EventTime, Key, Label, LiveModel, Number, Pipeline
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.streams.log.base import Topic
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog

RECORDED = Path(support.__path__[0]) / "releases_of_0_1.msgpack.gz"
"""The models topic of a pipeline that commit 7b2cc68 had trained on 600 labels: y is 1 where x is above 0."""


class Reading(Event):
    """The event as it was declared then."""

    id: Key
    at: EventTime
    x: Number
    site: Category


PIPELINE = Pipeline("compat", event=Reading, label=Label("y", kind="binary", wait="1h"))


class Recorded(msgspec.Struct):
    """Keys and values of the models topic, and the trusted public keys."""

    records: list[dict[str, bytes | None]]
    trusted: list[bytes]


def test_releases_of_version_0_1_are_served(tmp_path: Path) -> None:
    """Signature, digest, golden batch and weights of both releases are accepted, and the newest one scores."""
    recorded = msgspec.msgpack.decode(gzip.decompress(RECORDED.read_bytes()), type=Recorded)
    log = SqliteLog(tmp_path / "log.db")
    log.create([Topic("compat.models", compacted=True)])
    writer = log.writer()
    writer.write([Out("compat.models", record["key"], record["value"]) for record in recorded.records])
    writer.commit()
    writer.flush()
    writer.close()
    with LiveModel.follow(log, PIPELINE, keys=TrustedKeys(recorded.trusted)) as live:
        release, scores = live.predict(
            [
                {"id": "a", "at": 1_767_226_600, "x": 0.9, "site": "a"},
                {"id": "b", "at": 1_767_226_600, "x": -0.9, "site": "b"},
            ]
        )
    log.close()
    assert release == 2
    assert scores.ravel().tolist() == pytest.approx([0.9805977, 0.02612738], abs=1e-4)
