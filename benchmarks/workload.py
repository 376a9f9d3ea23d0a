"""Workload of the benchmarks: events of an id, a time and 8 numbers, the default model, releases of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from tailrace.declaration.event import Event, EventTime, Key
from tailrace.declaration.features import Vector
from tailrace.declaration.label import Label
from tailrace.declaration.pipeline import ModelFactory, Pipeline
from tailrace.declaration.triggers import Trigger
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
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
from tailrace.inference.releases.signing import SigningKey
from tailrace.inference.serving.loader import scorer
from tailrace.streams.log.base import Delivery, Log
from tailrace.streams.log.records import Out

NUMBERS = 8
PARTITIONS = 4
_CHUNK = 5_000
_KEPT = 5  # releases that stay in the topic


class Reading(Event):
    """Event of the benchmarks: {"id": "e000001", "ts": 1767225600.25, "x": [8 numbers]}."""

    id: Key
    ts: EventTime
    x: Annotated[list[float], Vector(NUMBERS)]


def pipeline(
    name: str = "bench",
    retrain: Sequence[Trigger] = (),
    *,
    online: bool = True,
    model: ModelFactory | None = None,
    **topics: str,
) -> Pipeline:
    """Declare the pipeline. Runs that must not share records take another name, or topics of their own."""
    label = Label("positive", wait="1h")
    return Pipeline(name, event=Reading, label=label, retrain=retrain, online=online, model=model, topics=topics)


class Source:
    """Source of events. The numbers come from a fixed block, so that generating events costs little."""

    def __init__(self, topic: str, seed: int = 1) -> None:
        self._topic = topic
        self._x = np.random.default_rng(seed).normal(size=(4_096, NUMBERS)).round(4).tolist()
        self._count = 0

    def take(self, count: int, now: float) -> list[Out]:
        """Make the next `count` events with event time `now`, in unix seconds."""
        numbers = range(self._count, self._count + count)
        self._count += count
        x, topic, encode = self._x, self._topic, msgspec.json.encode
        ids = [f"e{n:08d}" for n in numbers]
        return [
            Out(topic, id.encode(), encode(Reading(id=id, ts=now, x=x[n % len(x)])), timestamp=int(now * 1000))
            for n, id in zip(numbers, ids, strict=True)
        ]


def fill(log: Log, topic: str, events: int) -> None:
    """Write `events` events to a topic."""
    source, writer = Source(topic), log.writer()
    for start in range(0, events, _CHUNK):
        writer.write(source.take(min(_CHUNK, events - start), time.time()))
        writer.commit()
    writer.flush()
    writer.close()


class Publisher:
    """Publisher of releases of the default model with alternating weights; removes old ones as the retrainer does."""

    def __init__(self, log: Log, pipeline: Pipeline) -> None:
        self.key = SigningKey.generate()
        self._topic = pipeline.topics.models
        self._writer = log.writer(f"{pipeline.name}-publisher", Delivery.EXACTLY_ONCE)
        self._releases = list(_releases(pipeline, self.key, 2))  # built once: building is not measured
        self._manifests: list[Manifest] = []

    def publish(self) -> int:
        """Publish the next release as champion and return its version."""
        version = len(self._manifests) + 1
        template = self._releases[version % 2]
        manifest = msgspec.structs.replace(template.manifest, version=version, created=time.time())
        release = pack(manifest, template.payload, self.key)
        self._manifests.append(release.manifest)
        topic, old = self._topic, self._manifests[-_KEPT - 1 : -_KEPT]
        removed = [record for manifest in old for record in tombstones(manifest.version, range(manifest.chunks), topic)]
        alias = alias_record(topic, "champion", version, "bench", "measuring", time.time())
        self._writer.write([*release_records(release, topic), alias, *removed])
        self._writer.commit()
        self._writer.flush()
        return version

    @property
    def trusted(self) -> str:
        """The public key, as PEM."""
        return self.key.public_pem().decode()

    def close(self) -> None:
        """Close the writer."""
        self._writer.close()


def _releases(pipeline: Pipeline, key: SigningKey, count: int) -> Iterator[Release]:
    import torch

    rng = np.random.default_rng(7)
    for seed in range(count):
        module: Any = ModelSpec.of(pipeline).build(seed)
        inputs = Inputs(rng.normal(size=(512, NUMBERS)).astype(np.float32), np.zeros((512, 0), np.int64))
        targets = torch.from_numpy((inputs.numbers[:, 0] > 0).astype(np.float32))
        if pipeline.model is None:
            module.prepare(torch.from_numpy(inputs.numbers), torch.from_numpy(inputs.categories), targets)
        golden = inputs.take(slice(16))
        manifest = Manifest(
            version=1, parent=0, created=0.0, trained_through=0.0, examples=512, code_digest="", seed=seed,
            reason="measuring", features=ModelSpec.of(pipeline).features.digest, task=pipeline.task,
            golden=Golden.of(golden, scorer(module, pipeline.task)(golden)),
        )  # fmt: skip
        yield pack(manifest, serialise(module.state_dict()), key)
