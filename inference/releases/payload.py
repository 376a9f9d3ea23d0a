"""A release's bytes, wherever they lie: in memory, in the models topic, or at a URL."""

from __future__ import annotations

from tailrace.inference.releases.manifest import Manifest, Refused, release_prefix
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.storage import fetch_payload
from tailrace.streams.log.base import Log, TopicPartition


def read_payload(log: Log, partition: TopicPartition, registry: Registry, manifest: Manifest, limit: int) -> bytes:
    """The payload of a *verified* manifest; itself it is not verified. `limit`: bytes that are read at most.

    Raises Refused (too_large, incomplete), StoreUnreachable, and what the log does.
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
    """From the topic, when an alias has gone back to a release whose chunks were forgotten."""
    fresh, prefix = Registry(hold=limit), release_prefix(version)
    for records in log.scan(partition, *span):
        fresh.apply(record for record in records if record.key is not None and record.key.startswith(prefix))
    return fresh.payload(version)
