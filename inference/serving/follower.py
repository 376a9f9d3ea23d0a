"""The background half of a live model: read the models topic, load the release of the alias, offer it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from tailrace.inference.releases.manifest import Alias, Refused
from tailrace.inference.releases.payload import read_payload
from tailrace.inference.releases.registry import Registry
from tailrace.inference.releases.storage import StoreUnreachable
from tailrace.inference.serving.loader import Loader, Serving
from tailrace.streams.log.base import Log, LogError, TopicPartition

_READ_RECORDS = 64  # per read; a chunk has up to 512 kB
_READ_S = 0.1
_BACK_OFF_S = (0.1, 5.0)  # first and longest pause after an error
_logger = structlog.get_logger(__name__)


class Follower:
    """Follows an alias of the models topic (one partition), from the topic's beginning.

    It acts only at the end of the topic, so that history is not replayed. `offer(serving, load_s)` and
    `refuse(version, refusal)` are called in the follower's thread. A release with missing records is refused as
    `incomplete`, and offered once the records arrive. `serving` is the release that serves already.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        alias: str,
        loader: Loader,
        serving: Serving,
        *,
        offer: Callable[[Serving, float], None],
        refuse: Callable[[int, Refused], None],
    ) -> None:
        self._log, self._partition, self._alias = log, TopicPartition(topic, 0), alias
        self._loader = loader
        self._offer, self._refuse = offer, refuse
        self._registry = Registry(hold=loader.limits.payload_bytes)
        self._position = 0
        self._considered = -1  # position at which the alias was last examined
        self._settled: Alias | None = None  # alias record that needs no more work
        self._offered = serving.release
        self.caught_up = threading.Event()
        """Set once the end of the topic was reached and the release of the alias there was offered or refused."""

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop`. No error ends it: the serving release goes on serving, and the follower tries again."""
        delay, longest = _BACK_OFF_S
        while not stop.is_set():
            position = self._position
            try:
                self._follow(stop)
            except (LogError, StoreUnreachable) as error:
                _logger.warning("releases unreachable", topic=self._partition.topic, error=str(error))
            except Exception:
                _logger.exception("following failed", topic=self._partition.topic)
            if self._position > position:
                delay = _BACK_OFF_S[0]
            stop.wait(delay)
            delay = min(2 * delay, longest)

    def _follow(self, stop: threading.Event) -> None:
        reader = self._log.reader([self._partition.topic], start={self._partition: self._position})
        try:
            while not stop.is_set():
                batch = reader.read(_READ_RECORDS, _READ_S)
                self._registry.apply(batch.records)
                if batch.records:
                    self._position = batch.records[-1].offset + 1
                    self._forget()
                if self._partition in batch.at_end and self._position != self._considered:
                    self._consider()
                    self._considered = self._position
                    self.caught_up.set()
        finally:
            reader.close()

    def _consider(self) -> None:
        alias = self._registry.aliases.get(self._alias)
        if alias is None or alias is self._settled:
            return
        try:
            if alias.version != self._offered:
                self._offer_version(alias.version)
        except Refused as refusal:
            self._refuse(alias.version, refusal)
            if refusal.reason == "incomplete":
                return
        self._settled = alias
        self._forget()

    def _offer_version(self, version: int) -> None:
        started = time.perf_counter()
        serving = self._loader.base_rate if version == 0 else self._load(version)
        self._offer(serving, time.perf_counter() - started)
        self._offered = version

    def _load(self, version: int) -> Serving:
        raw = self._registry.releases.get(version)
        if raw is None:
            raise Refused("incomplete", f"release {version} has no manifest")
        manifest, limit = self._loader.manifest(raw), self._loader.limits.payload_bytes
        return self._loader.load(manifest, read_payload(self._log, self._partition, self._registry, manifest, limit))

    def _forget(self) -> None:
        """Free the chunks of releases that are not needed.

        Keep those of the release that the alias names until it was offered or refused, and those of the newest release,
        which the alias may name next.
        """
        alias, held = self._registry.aliases.get(self._alias), self._registry.held
        wanted = {*held[-1:], alias.version if alias else 0}
        done = self._settled.version if self._settled and self._settled is alias else 0
        for version in held:
            if version not in wanted or version == done:
                self._registry.forget_payload(version)
