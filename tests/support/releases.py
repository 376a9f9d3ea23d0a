"""Both ends of a models topic on a real log: a publisher of releases and the live model that follows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from tailrace.declaration.event import Event, Key
from tailrace.declaration.features import Category, Number
from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Features
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import (
    Golden,
    Manifest,
    Release,
    alias_record,
    pack,
    release_records,
    serialise,
)
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.inference.serving.live_model import LiveModel
from tailrace.inference.serving.loader import Loader, scorer
from tailrace.streams.log.base import Topic
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog

TOPIC = "flights.models"
TASK = Task(Kind.BINARY)
KEY = SigningKey.generate()


class Row(Event):
    """An event of the test."""

    id: Key
    x: Number
    carrier: Category | None = None


FEATURES = Features.of(Row)
SPEC = ModelSpec(FEATURES, TASK)
ROWS = FEATURES.encode([Row(id="a", x=1.0, carrier="UA"), Row(id="b", x=-2.0)])


def release(version: int, **changes: Any) -> Release:
    """A release whose weights depend on its version."""
    module = ModelSpec(FEATURES, TASK).build(version)
    with torch.no_grad():
        module.get_parameter("linear.bias").fill_(version / 10)
    manifest = Manifest(
        version=version,
        parent=version - 1,
        created=0.0,
        trained_through=0.0,
        examples=1,
        code_digest="",
        seed=version,
        reason="labels",
        features=FEATURES.digest,
        task=TASK,
        golden=Golden.of(ROWS, scorer(module, TASK)(ROWS)),
    )
    manifest = msgspec.structs.replace(manifest, **changes)
    return pack(manifest, serialise(module.state_dict()), KEY)


def champion(version: int) -> Out:
    """The record that makes this version the champion."""
    return alias_record(TOPIC, "champion", version, "test", "because", 0.0)


class Ends:
    """A publisher and the live models of one models topic; records swaps and refusals."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = SqliteLog(path)
        self.log.create([Topic(TOPIC, compacted=True)])
        self._writer = self.log.writer()
        self.swaps: list[tuple[int, int, float, float]] = []
        self.refusals: list[tuple[int, str]] = []

    def publish(self, *outs: Out | Release | Sequence[Out]) -> None:
        """Write releases and records in this order, in one transaction."""
        for out in outs:
            records = release_records(out, TOPIC) if isinstance(out, Release) else out
            self._writer.write([records] if isinstance(records, Out) else list(records))
        self._writer.commit()
        self._writer.flush()

    def live(self, spec: ModelSpec | None = None, **options: Any) -> LiveModel:
        """A live model of this topic; its swaps and refusals are recorded."""
        loader = Loader(spec or SPEC, trusted=TrustedKeys([KEY.public_pem()]), base_rate=0.25)
        return LiveModel(
            self.log,
            TOPIC,
            loader,
            on_swap=lambda swap: self.swaps.append(swap[:4]),
            on_refusal=lambda refusal: self.refusals.append((refusal.version, refusal.reason)),
            **options,
        )

    def close(self) -> None:
        """Free the log."""
        self._writer.close()
        self.log.close()
