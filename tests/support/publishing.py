"""Manifests, payloads and reports for tests that publish releases."""

from __future__ import annotations

from support import retrain_pipeline as tiny

from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Golden, Manifest, serialise
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.retrain.control.publisher import Publisher
from tailrace.retrain.control.reports import RunReport
from tailrace.streams.log.base import Committed, Reader, TopicPartition

KEY = SigningKey.generate()
TRUSTED = TrustedKeys([KEY.public_pem()])
PAYLOAD = serialise(ModelSpec.of(tiny.pipeline).build().state_dict())
EXAMPLES = TopicPartition("examples", 0)


def manifest(parent: int = 0) -> Manifest:
    return Manifest(
        version=0,
        parent=parent,
        created=1.0,
        trained_through=1.0,
        examples=1,
        code_digest="",
        seed=0,
        reason="test",
        features=ModelSpec.of(tiny.pipeline).features.digest,
        task=tiny.pipeline.task,
        golden=Golden(),
    )


def report(parent: int = 0) -> RunReport:
    return RunReport(
        outcome="published",
        reason="test",
        detail="",
        parent=parent,
        since=1.0,
        at=2.0,
        examples=1,
        fresh=1,
        total_s=0.1,
    )


def publish(publisher: Publisher, reader: Reader, position: int = 1) -> int:
    publisher.models.refresh()
    parent = publisher.models.champion
    return publisher.publish(manifest(parent), PAYLOAD, report(parent), {EXAMPLES: Committed(position)}, reader)
