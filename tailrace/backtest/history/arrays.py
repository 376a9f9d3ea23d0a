"""History as arrays (pure): what happened, and from which event on each label was known."""

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
    """How late labels are: so many events, or so many seconds, after their own event; neither: as late as they were."""

    events: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Delay:
        """Of "500", "12h" or "natural". Raises BadData."""
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
    """n events in the order in which they are scored, and the labels that came.

    `times`: unix seconds (or row numbers) [n], never running back. `targets` [n], or [n, labels]: NaN where no label
    ever came. `arrivals`: in the order in which labels became known; position n: after the last event. `optional` and
    `buckets` say of the columns of `inputs` what `models.encoding.Features` does. Plain data: it travels between
    processes.
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

    def known(self) -> PartialHistory:
        """The same as what has become known, to be replayed."""
        targets = targets_of(self.targets[[arrival.event for arrival in self.arrivals]])
        part = Part(self.ids, self.times.tolist(), self.inputs, self.features, self.arrivals, targets)
        return PartialHistory([part], self.optional, self.buckets, self.targets.shape[1:])

    def delayed(self, delay: Delay) -> Stream:
        """The same history, had its labels (those that silence stood for too) been late by `delay`."""
        if delay == Delay():
            return self
        own = np.array(sorted(arrival.event for arrival in self.arrivals), np.int64)
        if delay.events is not None:
            positions = np.minimum(own + delay.events + 1, len(self))
        else:  # never before the event itself, however short the delay
            due = self.times[own] + (delay.seconds or 0.0)
            positions = np.maximum(np.searchsorted(self.times, due), own + 1)
        return replace(self, arrivals=list(map(Arrival, positions.tolist(), own.tolist())))

    def head(self, events: int) -> Stream:
        """The first so many events, and the labels that became known before the next one."""
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
    """Moments of a file or a log as arrays. `policy` stands in for the declaration's own (another wait). Without
    `dicts` the features are there as arrays only."""
    features = ModelSpec.of(pipeline).features
    some = parts(moments, pipeline, policy or pipeline.policy, dicts=dicts)
    return whole(PartialHistory(some, features.optional, features.buckets, pipeline.task.target_shape))


def whole(growing: PartialHistory) -> Stream:
    """All of it, read to its end."""
    growing.count()
    return Stream(
        growing.ids,
        growing.times,
        growing.inputs,
        growing.features,
        growing.targets,
        list(growing.arrivals()),
        growing.optional,
        growing.buckets,
    )


@contextmanager
def uncollected() -> Iterator[None]:
    """Millions of objects are made and none is garbage: looking through them again and again takes half the time."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
