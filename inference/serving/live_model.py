"""A model that stays fresh: releases are loaded in the background and swapped in between two batches.

    follower's thread   read topic -> verify -> rebuild -> warm up -> golden batch -> offer
    scoring thread      current(): take what is offered, or go on with what serves -> score one batch

A batch is scored by exactly one release, because `Serving` is one reference that only `current` changes. What is
refused changes nothing. Until the first release comes, release 0 serves: the base rate.

Anywhere else than in a pipeline's own worker, three lines give an always-current model:

    with LiveModel.follow("kafka://broker:9092", pipeline) as live:
        release, scores = live.predict([{"id": "p1", "amount": 12.5}])
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from tailrace.declaration.event import Event
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.columns import Floats
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Limits, Refused
from tailrace.inference.releases.signing import TrustedKeys, known_keys
from tailrace.inference.serving.follower import Follower
from tailrace.inference.serving.loader import Loader, Serving, base_rate_serving
from tailrace.streams.log.base import Log, TopicMissing
from tailrace.streams.log.url import open_log

_KEYS = Path(".tailrace/keys")


class Predicted(NamedTuple):
    """Scores [n, outputs] of n events, as in `log.records.Prediction`, and the release that gave them."""

    release: int
    scores: Floats


class LiveModel:
    """Follows an alias of the models topic; use it as a context manager, or `start` and `close` it.

    `on_swap(old, new, pause_s, load_s)`: called by `current` after it swapped; `pause_s` is how long the swap held up
    the scoring thread, `load_s` how long the background worked for it. `on_refusal(version, reason)`: called in the
    follower's thread with one of `releases.manifest.REASONS`. `patience`: how many seconds `start` waits at most until
    the release that is current then has been loaded or refused.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        spec: ModelSpec,
        *,
        trusted: TrustedKeys,
        base_rate: float | Sequence[float] | None = None,
        alias: str = "champion",
        limits: Limits | None = None,
        on_swap: Callable[[int, int, float, float], None] | None = None,
        on_refusal: Callable[[int, str], None] | None = None,
        patience: float = 0.0,
    ) -> None:
        self._features, self._on_swap, self._on_refusal = spec.features, on_swap, on_refusal
        self._serving = base_rate_serving(spec.task, base_rate)
        self._offered: _Offer | None = None
        self._retired: Serving | None = None  # freed by the follower's thread: freeing a large model takes time
        self._refused: dict[int, Refused] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        loader = Loader(spec, trusted=trusted, limits=limits)
        follower = Follower(log, topic, alias, loader, self._serving, offer=self._offer, refuse=self._refuse)
        self._caught_up, self._patience = follower.caught_up, patience
        self._own_log: Log | None = None
        self._thread = threading.Thread(target=follower.run, args=(self._stop,), name=f"follow {topic}", daemon=True)

    @classmethod
    def follow(
        cls,
        log: Log | str,
        pipeline: Pipeline,
        *,
        keys: TrustedKeys | Path | str = _KEYS,
        alias: str = "champion",
        patience: float = 10.0,
        on_swap: Callable[[int, int, float, float], None] | None = None,
        on_refusal: Callable[[int, str], None] | None = None,
    ) -> LiveModel:
        """The live model of a declared pipeline, for whoever wants its scores: a web service, a notebook, another
        stream processor.

        `log`: its URL, or an open log (which the caller closes), as where passwords are needed. `keys`: the public keys
        to trust, or the key directory that holds them in `trusted/`. Raises Unreachable, BadUrl, BadKey, and
        TopicMissing when the pipeline has no models topic there.
        """
        opened = open_log(log) if isinstance(log, str) else log
        try:
            topic = pipeline.topics.models
            if not opened.partitions(topic):
                raise TopicMissing(f"there is no topic {topic!r}: check the log's address and the pipeline's name")
            live = cls(
                opened,
                topic,
                ModelSpec.of(pipeline),
                trusted=keys if isinstance(keys, TrustedKeys) else known_keys(Path(keys)),
                base_rate=pipeline.label.base_rate,
                alias=alias,
                on_swap=on_swap,
                on_refusal=on_refusal,
                patience=patience,
            )
        except BaseException:
            if isinstance(log, str):
                opened.close()
            raise
        live._own_log = opened if isinstance(log, str) else None
        return live

    def start(self) -> None:
        """Begin to follow. Imports torch here, because an import in the background would hold up the scoring thread."""
        import torch  # noqa: F401

        self._thread.start()
        self._caught_up.wait(self._patience)

    def close(self) -> None:
        """Stop following; what serves goes on serving."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._own_log is not None:
            self._own_log.close()
            self._own_log = None

    def __enter__(self) -> LiveModel:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def current(self) -> Serving:
        """What scores the next batch; swaps when a release is offered. Never waits for a load."""
        if self._offered is not None:
            self._swap()
        return self._serving

    @property
    def trained_through(self) -> float:
        """The time of the newest event that what serves has learned, unix seconds; 0: it has learned nothing."""
        return self._serving.trained_through

    def wait_for(self, version: int, timeout: float) -> None:
        """Return when `current` gives `version` or is about to. Raises Refused if it was refused, TimeoutError."""

        def decided() -> bool:
            ready = self._offered.serving if self._offered else self._serving
            return ready.release == version or version in self._refused

        with self._changed:
            if not self._changed.wait_for(decided, timeout):
                raise TimeoutError(f"release {version} was not loaded within {timeout} s")
            if version in self._refused:
                raise self._refused[version]

    def predict(self, events: Sequence[Event | Mapping[str, Any]]) -> Predicted:
        """Score n events, declared ones or the same as dicts; any number of threads may.

        Raises ValueError, which names the event that does not fit the declaration, and what a @feature raises.
        """
        declared = [
            event if isinstance(event, self._features.event) else _converted(n, event, self._features.event)
            for n, event in enumerate(events)
        ]
        inputs, serving = self._features.encode(declared), self.current()
        return Predicted(serving.release, serving.score(inputs))

    def _swap(self) -> None:
        started = time.perf_counter()
        with self._changed:
            offer, self._offered = self._offered, None
            if offer is None:
                return  # another thread was faster
            old, self._serving = self._serving, offer.serving
            self._retired = old
        pause = time.perf_counter() - started
        if self._on_swap is not None:
            self._on_swap(old.release, offer.serving.release, pause, offer.load_s)

    def _offer(self, serving: Serving, load_s: float) -> None:
        with self._changed:
            self._retired = None
            self._refused.pop(serving.release, None)
            self._offered = _Offer(serving, load_s)
            self._changed.notify_all()

    def _refuse(self, version: int, refusal: Refused) -> None:
        if refusal.reason != "incomplete":
            with self._changed:
                self._refused = {version: refusal}
                self._changed.notify_all()
        if self._on_refusal is not None:
            self._on_refusal(version, refusal.reason)


def _converted(n: int, event: Event | Mapping[str, Any], kind: type[Event]) -> Event:
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"event {n} does not fit {kind.__name__}: {error}") from None


class _Offer(NamedTuple):
    serving: Serving
    load_s: float
