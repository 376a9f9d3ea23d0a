"""A model that stays current: releases are loaded in the background and swapped in between two batches.

    follower's thread   read the models topic -> verify -> rebuild -> warm up -> check the golden batch -> offer
    scoring thread      current(): swap in the offered release, if any -> score one batch

One release scores a batch, because only `current` changes the reference to the `Serving`. A refused release changes
nothing. Release 0, the base rate, serves until the first release is loaded.

Outside of a pipeline's own worker, two lines give an always-current model:

    with LiveModel.follow("kafka://broker:9092", pipeline) as live:
        release, scores = live.predict([{"id": "p1", "amount": 12.5}])

A forked child process (gunicorn --preload, multiprocessing) follows too. Its first `predict` opens a connection of its
own, waits for the current release, and limits torch to one thread in the child: torch's thread pool does not survive a
fork, and a computation that uses it would never return.
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
from tailrace.inference.releases.manifest import Refused
from tailrace.inference.releases.signing import TrustedKeys, known_keys
from tailrace.inference.serving import fork
from tailrace.inference.serving.errors import BadEvent, NotFollowing, NotLoaded
from tailrace.inference.serving.follower import Follower
from tailrace.inference.serving.loader import Loader, Serving
from tailrace.streams.log.base import Log, TopicMissing
from tailrace.streams.log.url import open_log

_KEYS = Path(".tailrace/keys")
_abandoned: list[object] = []  # connections of a forked parent: closing them here could hang or disturb the parent


class Predicted(NamedTuple):
    """Scores, shape [n, outputs], as in `log.records.Prediction`, and the release that gave them."""

    release: int
    scores: Floats


class Swap(NamedTuple):
    """A release took over from another.

    `pause_s`: seconds for which the swap delayed the scoring thread. `load_s`: seconds of background work before it.
    `trained_through`: time of the newest event that the new release has learned, unix seconds; 0: none.
    """

    old: int
    new: int
    pause_s: float
    load_s: float
    trained_through: float


class RefusedRelease(NamedTuple):
    """A release was refused. `reason` is one of `releases.manifest.REASONS`, `serving` the release that serves on."""

    version: int
    reason: str
    detail: str
    serving: int


class LiveModel:
    """Model that follows an alias of the models topic. Use it as a context manager, or call `start` and `close`.

    `LiveModel.follow` makes one for a declared pipeline and starts it.

    `patience`: maximum seconds for which `start` waits until the release that is current then is loaded or refused.
    `on_swap` is called by `current` after a swap, `on_refusal` in the follower's thread.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        loader: Loader,
        *,
        alias: str = "champion",
        patience: float = 0.0,
        on_swap: Callable[[Swap], None] | None = None,
        on_refusal: Callable[[RefusedRelease], None] | None = None,
    ) -> None:
        self._log, self._owns_log = log, False
        self._topic, self._loader, self._alias, self._patience = topic, loader, alias, patience
        self._on_swap, self._on_refusal = on_swap, on_refusal
        self._event = loader.spec.features.event
        self._encode = loader.spec.features.encode
        self._serving = loader.base_rate
        self._offered: _Offer | None = None
        self._retired: Serving | None = None  # freed by the follower's thread: freeing a large model takes time
        self._refused: dict[int, Refused] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ready = False  # false before the start, and in a forked child until its first use
        self._forked = False
        self._make_locks()
        fork.register(self)

    def _make_locks(self) -> None:
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._stop = threading.Event()

    @classmethod
    def follow(
        cls,
        log: Log | str,
        pipeline: Pipeline,
        *,
        keys: TrustedKeys | Path | str = _KEYS,
        alias: str = "champion",
        patience: float = 10.0,
        on_swap: Callable[[Swap], None] | None = None,
        on_refusal: Callable[[RefusedRelease], None] | None = None,
    ) -> LiveModel:
        """Follow the releases of a declared pipeline, in a web service, a notebook or another stream processor.

        The live model is started already: its first prediction is by the current release.

        `log`: its URL, or an open log (which the caller closes), for example where passwords are needed. `keys`: the
        trusted public keys, or the key directory that holds them in `trusted/`.
        Raises Unreachable, BadUrl, BadKey, and TopicMissing if the log has no models topic of this pipeline.
        """
        opened = open_log(log) if isinstance(log, str) else log
        try:
            topic = pipeline.topics.models
            if not opened.partitions(topic):
                raise TopicMissing(f"there is no topic {topic!r}: check the log's address and the pipeline's name")
            trusted = keys if isinstance(keys, TrustedKeys) else known_keys(Path(keys))
            loader = Loader(ModelSpec.of(pipeline), trusted=trusted, base_rate=pipeline.label.base_rate)
            live = cls(opened, topic, loader, alias=alias, patience=patience, on_swap=on_swap, on_refusal=on_refusal)
        except BaseException:
            if isinstance(log, str):
                opened.close()
            raise
        live._owns_log = isinstance(log, str)
        try:
            live.start()
        except BaseException:
            live.close()
            raise
        return live

    def start(self) -> None:
        """Follow the alias, and wait for the current release for at most `patience` seconds. Idempotent.

        Imports torch here, because an import in the background would delay the scoring thread.
        """
        import torch  # noqa: F401

        with self._starting:
            if self._thread is None:
                self._begin()
                self._ready = True

    def close(self) -> None:
        """Stop following. The release that serves goes on serving."""
        self._closed = True
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        if self._owns_log:
            self._owns_log = False
            if self._forked:
                _abandoned.append(self._log)
            else:
                self._log.close()

    def __enter__(self) -> LiveModel:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def current(self) -> Serving:
        """The release that scores the next batch; swaps in an offered one. Does not wait for a load.

        The first call in a forked child waits like `start`. Raises NotFollowing before the start, and in a forked child
        Unreachable if the log cannot be opened there; the next call tries again.
        """
        if not self._ready:
            self._resume()
        if self._offered is not None:
            self._swap()
        return self._serving

    @property
    def trained_through(self) -> float:
        """Time of the newest event that the serving release has learned, unix seconds; 0: it has learned nothing."""
        return self._serving.trained_through

    def wait_for(self, version: int, timeout: float) -> None:
        """Wait until `current` gives `version` or is about to. `timeout` in seconds.

        Raises Refused if the release was refused, NotLoaded (a TimeoutError) after the time-out, NotFollowing.
        """
        if not self._ready:
            self._resume()

        def decided() -> bool:
            ready = self._offered.serving if self._offered else self._serving
            return ready.release == version or version in self._refused

        with self._changed:
            if not self._changed.wait_for(decided, timeout):
                raise NotLoaded(f"release {version} was not loaded within {timeout} s")
            if version in self._refused:
                raise self._refused[version]

    def predict(self, events: Sequence[Event | Mapping[str, Any]]) -> Predicted:
        """Score n events, given as instances of the event class or as dicts. Safe to call from any number of threads.

        Raises BadEvent (a ValueError), which names the event that does not fit the declaration, the errors of
        `current`, and what a @feature raises.
        """
        kind = self._event
        declared = [event if isinstance(event, kind) else _converted(n, event, kind) for n, event in enumerate(events)]
        inputs, serving = self._encode(declared), self.current()
        return Predicted(serving.release, serving.score(inputs))

    # ---- following

    def after_fork(self) -> None:
        """Prepare a forked child: replace the locks, which its parent's threads may have held. See `fork`."""
        self._make_locks()
        self._ready = False
        self._forked = True

    def _begin(self) -> None:
        follower = Follower(
            self._log, self._topic, self._alias, self._loader, self._serving, offer=self._offer, refuse=self._refuse
        )
        run = threading.Thread(target=follower.run, args=(self._stop,), name=f"follow {self._topic}", daemon=True)
        self._thread = run
        run.start()
        follower.caught_up.wait(self._patience)

    def _resume(self) -> None:
        """Follow again in a forked child. Raises NotFollowing if the model was never started."""
        with self._starting:
            if self._ready:
                return  # another thread was faster
            if self._thread is None:
                raise NotFollowing(
                    "this live model was never started: call start(), or use `with`; LiveModel.follow does it for you"
                )
            _limit_torch()
            if not self._closed:
                inherited, self._log = self._log, self._log.reopen()
                if self._owns_log:
                    _abandoned.append(inherited)
                self._owns_log, self._forked = True, False
                self._begin()
            self._ready = True

    # ---- swapping

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
            new = offer.serving
            self._on_swap(Swap(old.release, new.release, pause, offer.load_s, new.trained_through))

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
            offer = self._offered
            serving = (self._serving if offer is None else offer.serving).release
            self._on_refusal(RefusedRelease(version, refusal.reason, refusal.detail, serving))


def _converted(index: int, event: Event | Mapping[str, Any], kind: type[Event]) -> Event:
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        raise BadEvent(f"event {index} does not fit {kind.__name__}: {error}") from None


def _limit_torch() -> None:
    """Compute in the calling thread alone: a forked child that uses the thread pool of its parent never returns."""
    import torch

    torch.set_num_threads(1)


class _Offer(NamedTuple):
    serving: Serving
    load_s: float
