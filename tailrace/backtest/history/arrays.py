"""A complete history as arrays (pure): events, targets, and the position at which each label became known."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.history.partial import PartialHistory
from tailrace.backtest.history.parts import Arrival, FeatureDict, Part, parts
from tailrace.datafiles.read import Moment
from tailrace.declaration.durations import seconds
from tailrace.declaration.label import JoinPolicy
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadData, DeclarationError
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import targets_of


class Delay(NamedTuple):
    """Label delay: a number of events or of seconds after the label's own event; neither: the recorded delay."""

    events: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Delay:
        """Parse "500" (events), "12h" (a duration) or "natural" (the recorded delay). Raise BadData."""
        if text == "natural":
            return cls()
        if text.isascii() and text.isdigit():
            return cls(events=int(text))
        try:
            return cls(seconds=seconds(text))
        except DeclarationError:
            raise BadData(
                f'a label delay is a number of events such as 500, a duration such as "12h", or natural; not {text!r}'
            ) from None


@dataclass(frozen=True)
class Stream:
    """n events in the order in which they are scored, and their labels. Plain data that can be sent to another process.

    `times`: unix seconds or row numbers, shape [n], never decreasing. `targets`: shape [n] or [n, labels], NaN for
    events whose label never arrived. `arrivals`: in the order in which labels became known; position n means after the
    last event. `optional` and `buckets` describe the columns of `inputs` as `models.encoding.Features` does.
    """

    ids: list[str]
    times: NDArray[np.float64]
    inputs: Inputs
    features: list[FeatureDict]
    targets: NDArray[np.float32]
    arrivals: list[Arrival]
    optional: tuple[bool, ...]
    buckets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def as_partial(self) -> PartialHistory:
        """Wrap the whole history as a PartialHistory that is complete after its first part."""
        targets = targets_of(self.targets[[arrival.event for arrival in self.arrivals]])
        part = Part(self.ids, self.times.tolist(), self.inputs, self.features, self.arrivals, targets)
        return PartialHistory([part], self.optional, self.buckets, self.targets.shape[1:])

    def delayed(self, delay: Delay) -> Stream:
        """Return this history with every label, implicit ones included, delayed by `delay`."""
        if delay == Delay():
            return self
        own = np.array(sorted(arrival.event for arrival in self.arrivals), np.int64)
        if delay.events is not None:
            positions = np.minimum(own + delay.events + 1, len(self))
        else:  # a label never arrives before its own event, however short the delay
            known_at = self.times[own] + (delay.seconds or 0.0)
            positions = np.maximum(np.searchsorted(self.times, known_at), own + 1)
        return replace(self, arrivals=list(map(Arrival, positions.tolist(), own.tolist())))

    def head(self, events: int) -> Stream:
        """Return the first `events` events and the labels that became known before the next event."""
        arrivals = [arrival for arrival in self.arrivals if arrival.position <= events and arrival.event < events]
        rows = slice(0, events)
        return replace(
            self,
            ids=self.ids[rows],
            times=self.times[rows],
            inputs=self.inputs.take(rows),
            features=self.features[rows],
            targets=self.targets[rows],
            arrivals=arrivals,
        )


def history(
    moments: Iterable[Moment], pipeline: Pipeline, policy: JoinPolicy | None = None, *, dicts: bool = True
) -> Stream:
    """Convert moments of a file or a log to arrays.

    `policy` replaces the join policy of the declaration. Without `dicts`, `features` is empty.
    """
    features = ModelSpec.of(pipeline).features
    stream_parts = parts(moments, pipeline, policy or pipeline.policy, dicts=dicts)
    return read_whole(PartialHistory(stream_parts, features.optional, features.buckets, pipeline.task.target_shape))


def read_whole(partial: PartialHistory) -> Stream:
    """Read a history to its end and return it as arrays."""
    partial.count()
    return Stream(
        partial.ids,
        partial.times,
        partial.inputs,
        partial.features,
        partial.targets,
        list(partial.arrivals()),
        partial.optional,
        partial.buckets,
    )


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector while a history is read, and exempt the objects made meanwhile.

    Reading creates millions of objects and no garbage; collections would take half of the time.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
