"""Publisher of releases: records, alias, clean-up, report and learned positions, in one transaction.

A rollback makes the champion's parent the champion. Each release names the champion that it started from and was
compared with, so its parents are the releases that served before.

Anybody who may write to the topic can put manifests there. Only manifests signed by a trusted key count for the next
version and for the removal of old releases.

Errors:

    UnknownRelease                tailrace.retrain.control.model_topic'
    Overtaken                     an operator was faster
    releases.manifest.Refused     what workers would refuse is not published, and not made the champion
    StoreUnreachable              tailrace.inference.releases.storage'; nothing was published
    those of the writer           Fenced: a newer retrainer has taken over; Aborted: nothing was published; TooLarge
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import structlog

from tailrace.errors import TailraceError
from tailrace.inference.releases.manifest import (
    Alias,
    Manifest,
    Refused,
    Release,
    alias_record,
    pack,
    release_records,
    tombstones,
    verify,
    verify_manifest,
)
from tailrace.inference.releases.registry import RawRelease
from tailrace.inference.releases.retention import outdated_releases
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.inference.releases.storage import Store, StoreUnreachable, location_of, remove_payload, store_payload
from tailrace.retrain.control.model_topic import CHAMPION, Models
from tailrace.retrain.control.model_topic import UnknownRelease as UnknownRelease
from tailrace.retrain.control.reports import RunReport, run_record
from tailrace.streams.log.base import Aborted, Committed, Delivery, Log, Reader, TopicPartition
from tailrace.streams.log.records import Out

_FAR = 1_000_000  # versions: see Publisher._next
_log = structlog.get_logger(__name__)


class Overtaken(TailraceError):
    """An operator has made another release the champion than the one that the candidate was compared with."""


def commits(topic: str, positions: Mapping[int, int]) -> dict[TopicPartition, Committed]:
    """Return the positions of a topic (partition -> offset) as a writer commits them."""
    return {TopicPartition(topic, partition): Committed(at) for partition, at in positions.items()}


class Publisher:
    """Writes to the models topic under a fixed name. A second writer of that name fences this one.

    Operators use another `writer_name` than the retrainer, and need no signing key to promote or roll back. Payloads
    that are too large for the log go to `store`, before the transaction that names them, and are removed after the one
    that removes their release: a crash between leaves a file that nobody names.

    A promotion or rollback that comes before a publication's last look at the topic wins over it. Between that look and
    the commit lie milliseconds: what an operator does in them is overwritten, and is to be done again.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        writer_name: str,
        trusted: TrustedKeys,
        key: SigningKey | None = None,
        *,
        keep: int = 5,
        store: Store | None = None,
    ) -> None:
        self._writer = log.writer(writer_name, Delivery.EXACTLY_ONCE)
        self.models = Models(log, topic)
        self._topic, self._trusted, self._key, self._keep, self._store = topic, trusted, key, keep, store
        self.pinned: set[int] = set()
        """Releases that a run under way has started from: they are not removed."""
        self._latest = 0  # newest version published here, even if it cannot be read yet
        self._checked: dict[int, Manifest | None] = {}  # offset of a manifest -> itself, if a trusted key signed it

    def publish(
        self,
        draft: Manifest,
        payload: bytes,
        report: RunReport | None,
        positions: Mapping[TopicPartition, Committed],
        reader: Reader,
    ) -> int:
        """Publish `draft` as the champion, with the report of its run, commit, and return its version.

        Raises Overtaken, Refused, and ValueError for a payload that cannot be read.
        """
        self._look(draft.parent)
        release = self._packed(draft, payload)
        self._upload(release)
        version = release.manifest.version
        aliased = {alias.version for alias in self.models.registry.aliases.values()}
        outdated = outdated_releases(self._genuine(), version, keep=self._keep, aliased=aliased, pinned=self.pinned)
        alias = Alias(version, "retrainer", draft.reason, draft.created)
        chunks = self.models.registry.chunks
        removed = [out for old in outdated for out in tombstones(old.version, chunks(old.version), self._topic)]
        records = [
            *release_records(release, self._topic),
            alias_record(self._topic, CHAMPION, *msgspec.structs.astuple(alias)),
            *removed,
        ]
        if report is not None:
            records.append(run_record(self._topic, msgspec.structs.replace(report, version=version)))
        self._commit(records, lambda: self.models.registry.aliases.get(CHAMPION) == alias, positions, reader)
        self._latest = version
        self._clear(outdated)
        return version

    def record(self, report: RunReport, positions: Mapping[TopicPartition, Committed], reader: Reader) -> None:
        """Record a run without a release, and commit."""
        self._commit([run_record(self._topic, report)], lambda: self.models.last_run == report, positions, reader)

    def commit(self, positions: Mapping[TopicPartition, Committed], reader: Reader) -> None:
        """Commit positions without a release or a report. Raises Aborted."""
        self._commit([], lambda: False, positions, reader)

    def manifest(self, version: int) -> Manifest | None:
        """Return the manifest of a release that a trusted key signed; None if there is none."""
        return self._genuine().get(version)

    def verified(self, version: int) -> tuple[Manifest, bytes]:
        """Return a release's verified manifest and weights: see `Models.verified`."""
        return self.models.verified(version, self._trusted)

    def promote(self, version: int, actor: str, reason: str, now: float) -> None:
        """Make a release (0: the base rate) the champion. `now` in unix seconds. Raises UnknownRelease, Refused."""
        self.models.refresh()
        if version:
            self._check(version)
        alias = Alias(version, actor, reason, now)
        self._commit(
            [alias_record(self._topic, CHAMPION, *msgspec.structs.astuple(alias))],
            lambda: self.models.registry.aliases.get(CHAMPION) == alias,
        )

    def rollback(self, actor: str, reason: str, now: float) -> int:
        """Make the champion's parent the champion; returns its version. Raises UnknownRelease, Refused."""
        self.models.refresh()
        version = self.models.manifest(self.models.champion).parent
        self.promote(version, actor, reason, now)
        return version

    def rejoin(self) -> None:
        """Drop what an outage of the log has interrupted, and read what was published. Raises Unreachable, Fenced."""
        self._writer.abort()
        self.models.refresh()

    def close(self) -> None:
        """Free the writer."""
        self._writer.close()

    def _look(self, parent: int) -> None:
        """Read new records. Raises Overtaken if `parent` is no longer the champion."""
        self.models.refresh()
        champion = self.models.champion
        if champion != parent:
            raise Overtaken(f"the champion changed from {parent} to {champion} during the run")

    def _packed(self, draft: Manifest, payload: bytes) -> Release:
        """Return `draft` as the next release: signed, then checked by `verify`. Raises Refused, ValueError."""
        if self._key is None:
            raise ValueError("a publisher without a signing key can promote and roll back, not publish")
        draft, store = msgspec.structs.replace(draft, version=self._next()), self._store
        location = location_of(store.url, draft.version, payload) if store and len(payload) > store.above else None
        release = pack(draft, payload, self._key, location)
        verify(release.signed, payload, self._trusted)
        return release

    def _upload(self, release: Release) -> None:
        """Store a payload that is too large for the log. That may take minutes, so check the champion again.

        Raises Overtaken.
        """
        manifest = release.manifest
        if self._store is None or manifest.location is None:
            return
        store_payload(self._store.url, manifest.version, release.payload)
        try:
            self._look(manifest.parent)
        except Overtaken:
            self._clear([manifest])
            raise

    def _check(self, version: int) -> None:
        try:
            self.verified(version)
        except Refused as refused:
            detail = f"release {version} would be refused by every worker ({refused.detail}): promote another"
            raise Refused(refused.reason, detail) from None

    def _genuine(self) -> dict[int, Manifest]:
        """Map versions to the manifests that a trusted key signed. Each is verified once, as it stays for long."""
        raws = self.models.registry.releases.values()
        self._checked = {
            raw.offset: self._checked[raw.offset] if raw.offset in self._checked else self._signed(raw) for raw in raws
        }
        return {manifest.version: manifest for manifest in self._checked.values() if manifest is not None}

    def _signed(self, raw: RawRelease) -> Manifest | None:
        try:
            return verify_manifest(raw.signed, self._trusted)
        except Refused:
            return None

    def _next(self) -> int:
        """Return the next version: above all genuine ones.

        Other versions count only while they are near. The versions of a revoked key are therefore not used again, and a
        forged version cannot use up the numbers.
        """
        newest = max(self._genuine(), default=0)
        for version in sorted(self.models.registry.releases):
            if newest < version <= newest + _FAR:
                newest = version
        return max(newest, self._latest) + 1

    def _clear(self, removed: list[Manifest]) -> None:
        store = self._store
        if store is None:
            return
        for manifest in removed:
            try:
                remove_payload(store.url, manifest)
            except StoreUnreachable as error:
                _log.warning("an old release's file stays", version=manifest.version, detail=str(error))

    def _commit(
        self,
        records: list[Out],
        happened: Callable[[], bool],
        positions: Mapping[TopicPartition, Committed] | None = None,
        reader: Reader | None = None,
    ) -> None:
        """Write and commit one transaction. If the answer to the commit is lost, `happened` asks the topic."""
        at_least = self.models.position + len(records)
        try:
            self._writer.write(records)
            self._writer.commit(positions, reader)
            self._writer.flush()
        except Aborted as aborted:
            self._writer.abort()
            self.models.refresh()
            if not happened():
                raise
            _log.info("committed after all", topic=self._topic, detail=str(aborted))
        except BaseException:
            self._writer.abort()
            raise
        else:
            self.models.refresh(at_least)
