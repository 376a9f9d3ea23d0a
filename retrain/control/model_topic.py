"""The models topic as the retrainer and operators see it: releases, aliases, the last run.

The champion is the release that the alias `champion` names.

Errors: UnknownRelease, releases.manifest.Refused, releases.storage.StoreUnreachable.
"""

from __future__ import annotations

import time

from tailrace.errors import TailraceError
from tailrace.inference.releases.manifest import Limits, Manifest, parse, verify_manifest, verify_payload
from tailrace.inference.releases.payload import read_payload
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.retrain.control.reports import RunReport, read_report
from tailrace.streams.log.base import Log, TopicPartition

CHAMPION = "champion"
SHOWN_LIMIT = 10.0  # seconds until what was committed can be read: on Kafka a moment, more while a broker is replaced


class UnknownRelease(TailraceError):
    """There is no such release, or it was removed; the message names those there are."""


class Models:
    """The models topic as it stands at the last `refresh`, unverified. Payloads are read when asked for, not kept."""

    def __init__(self, log: Log, topic: str) -> None:
        self.topic = topic
        self.registry = Registry(hold=0)
        self.last_run: RunReport | None = None
        self._log = log
        self._partition = TopicPartition(topic, 0)
        self._next = 0
        self.refresh()

    @property
    def champion(self) -> int:
        """The version that serves; 0: the base rate."""
        alias = self.registry.aliases.get(CHAMPION)
        return alias.version if alias else 0

    @property
    def position(self) -> int:
        """Up to where the topic was read."""
        return self._next

    def refresh(self, at_least: int = 0) -> None:
        """Read what was added; for up to SHOWN_LIMIT seconds wait until the topic ends no sooner than `at_least`."""
        deadline = time.monotonic() + SHOWN_LIMIT
        while (end := self._log.end_positions(self.topic).get(self._partition, 0)) < at_least:
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        for batch in self._log.scan(self._partition, self._next, end):
            self.registry.apply(batch)
            self.last_run = next(filter(None, map(read_report, reversed(batch))), self.last_run)
        self._next = end

    def manifest(self, version: int) -> Manifest:
        """A release's manifest, unverified. Raises UnknownRelease, tailrace.inference.releases.manifest.Refused."""
        release = self.registry.releases.get(version)
        if release is None:
            known = ", ".join(map(str, sorted(self.registry.releases))) or "none"
            raise UnknownRelease(f"there is no release {version} in {self.topic}; there are: {known}")
        return parse(release.signed)[1]

    def find(self, version: int) -> Manifest | None:
        """The same; None when there is no such release, or it was removed."""
        return self.manifest(version) if version in self.registry.releases else None

    def verified(self, version: int, trusted: TrustedKeys) -> tuple[Manifest, bytes]:
        """A release's manifest and safetensors bytes, checked, wherever the bytes lie.

        Raises UnknownRelease, releases.manifest.Refused, releases.storage.StoreUnreachable.
        """
        self.manifest(version)
        manifest = verify_manifest(self.registry.releases[version].signed, trusted)
        payload = read_payload(self._log, self._partition, self.registry, manifest, Limits().payload_bytes)
        verify_payload(manifest, payload)
        return manifest, payload
