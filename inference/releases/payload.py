"""Payload of a release, read from memory, from the models topic, or from a URL."""

from __future__ import annotations

from tailrace.inference.releases.manifest import Manifest, Refused, release_prefix
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.storage import fetch_payload
from tailrace.streams.log.base import Log, TopicPartition


def read_payload(log: Log, partition: TopicPartition, registry: Registry, manifest: Manifest, limit: int) -> bytes:
    """Read the payload of a *verified* manifest. The payload itself is not verified. `limit`: maximum size in bytes.

    Raises Refused (too_large, incomplete), StoreUnreachable, and the errors of the log.
    """
    if manifest.size > limit:
        raise Refused("too_large", f"release {manifest.version} has {manifest.size} bytes, the limit is {limit}")
    if manifest.location is not None:
        return fetch_payload(manifest, limit)
    payload = registry.payload(manifest.version)
    if payload is None:
        payload = _read_again(log, partition, registry.span(manifest.version), manifest.version, limit)
    if payload is None:
        raise Refused("incomplete", f"release {manifest.version} lacks some of its {manifest.chunks} chunks")
    return payload


def _read_again(log: Log, partition: TopicPartition, span: tuple[int, int], version: int, limit: int) -> bytes | None:
    """Read the chunks from the topic: after a rollback the registry may not hold them any more."""
    registry, prefix = Registry(hold=limit), release_prefix(version)
    for records in log.scan(partition, *span):
        registry.apply(record for record in records if record.key is not None and record.key.startswith(prefix))
    return registry.payload(version)
