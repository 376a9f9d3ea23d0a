"""The models topic as the retrainer and operators read it: releases, aliases, the report of the last run.

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
READABLE_S = 10.0  # longest wait for a committed record to become readable: more than a moment only if a broker fails


class UnknownRelease(TailraceError):
    """The release does not exist, or it was removed. The message names the existing ones."""


class Models:
    """Releases, aliases and last run report of the models topic at the last `refresh`, before any check of signatures.

    `verified` checks a release, and reads its payload, which is not kept.
    """

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
        """Version that serves; 0: the base-rate model."""
        alias = self.registry.aliases.get(CHAMPION)
        return alias.version if alias else 0

    @property
    def position(self) -> int:
        """Offset up to which the topic was read."""
        return self._next

    def refresh(self, at_least: int = 0) -> None:
        """Read new records. Wait up to READABLE_S seconds until the topic ends at `at_least` or later."""
        deadline = time.monotonic() + READABLE_S
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
        """Return the manifest of a release, unverified; None if it does not exist or was removed."""
        return self.manifest(version) if version in self.registry.releases else None

    def verified(self, version: int, trusted: TrustedKeys) -> tuple[Manifest, bytes]:
        """Return a release's verified manifest and safetensors bytes, from the log or the store.

        Raises UnknownRelease, releases.manifest.Refused, releases.storage.StoreUnreachable.
        """
        self.manifest(version)
        manifest = verify_manifest(self.registry.releases[version].signed, trusted)
        payload = read_payload(self._log, self._partition, self.registry, manifest, Limits().payload_bytes)
        verify_payload(manifest, payload)
        return manifest, payload
