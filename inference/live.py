"""A model that stays fresh: releases are loaded in the background and swapped in between two batches.

    follower's thread   read topic -> verify -> rebuild -> warm up -> golden batch -> offer
    scoring thread      current(): take what is offered, or go on with what serves -> score one batch

A batch is scored by exactly one release, because `Serving` is one reference that only `current` changes. What is
refused changes nothing. Until the first release comes, release 0 serves: the base rate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from inference.columns import Floats
from inference.features import Features
from inference.following import Follower
from inference.keys import TrustedKeys
from inference.loading import Loader, Serving, base_rate_serving
from inference.model import ModelFactory
from inference.release import Limits, Refused
from inference.task import Task
from streams.log import Log


class LiveModel:
    """Follows an alias of the models topic; use it as a context manager, or `start` and `close` it.

    `on_swap(old, new, pause_s, load_s)`: called by `current` after it swapped; `pause_s` is how long the swap held up
    the scoring thread, `load_s` how long the background worked for it. `on_refusal(version, reason)`: called in the
    follower's thread with one of `inference.release.REASONS`.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        features: Features,
        task: Task,
        *,
        trusted: TrustedKeys,
        factory: ModelFactory | None = None,
        base_rate: float | Sequence[float] | None = None,
        alias: str = "champion",
        limits: Limits | None = None,
        on_swap: Callable[[int, int, float, float], None] | None = None,
        on_refusal: Callable[[int, str], None] | None = None,
    ) -> None:
        self._features, self._on_swap, self._on_refusal = features, on_swap, on_refusal
        self._serving = base_rate_serving(task, base_rate)
        self._offered: _Offer | None = None
        self._retired: Serving | None = None  # freed by the follower's thread: freeing a large model takes time
        self._refused: dict[int, Refused] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        loader = Loader(features, task, trusted=trusted, factory=factory, limits=limits)
        follower = Follower(log, topic, alias, loader, self._serving, offer=self._offer, refuse=self._refuse)
        self._thread = threading.Thread(target=follower.run, args=(self._stop,), name=f"follow {topic}", daemon=True)

    def start(self) -> None:
        """Begin to follow. Imports torch here, because an import in the background would hold up the scoring thread."""
        import torch  # noqa: F401

        self._thread.start()

    def close(self) -> None:
        """Stop following; what serves goes on serving."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

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

    def predict(self, events: Sequence[Any]) -> Floats:
        """Scores [n, outputs] of n events, outside any pipeline. Raises what `Features.encode` does."""
        return self.current().score(self._features.encode(events))

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


class _Offer(NamedTuple):
    serving: Serving
    load_s: float
