"""Reference learners: what the pipeline has to beat, fed with the same delayed labels in the same order.

    no change     the label that became known last (the mean of none: even odds)
    frozen        the default model, trained once on the first labels and never again
    logistic      River's LogisticRegression (multi-class: SoftmaxRegression, regression: LinearRegression), categories
                  one-hot, numbers standardised, SGD 0.005
    adaptive tree River's HoeffdingAdaptiveTree: Bifet and Gavalda, "Adaptive learning from evolving data streams", 2009
    forest        River's adaptive random forest of 10 trees: Gomes et al., "Adaptive random forests", 2017

River's learners are untuned; a multi-label task has one for each label. A missing number is left out: it counts as the
mean in the linear models (0 once standardised), and in trees follows the branch that most have taken. Trees do without
categories of more than 256 values: River splits them into a branch a value, and is slower and worse for it. River and
torch are imported when a learner starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.backtest.history.arrays import Stream
from tailrace.declaration.task import Kind, Target, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.targets import flags_of, number_of, targets_of

FROZEN_EXAMPLES = 2_000
PROCESSES = 2
_FROZEN_EPOCHS = 5  # of 2, 3, 5 and 10 the best log-loss in the mean of electricity and covertype
_TREES = 10
_MOST_VALUES = 256
_STEP = 0.005

Scores: TypeAlias = NDArray[np.float32]


class Ran(NamedTuple):
    """Scores [n, outputs] as they stood when each event came (not finite where a learner diverged), and what it took:
    CPU seconds of its process and seconds by the clock."""

    scores: Scores
    cpu_seconds: float
    seconds: float


class Learner(Protocol):
    """Scores an event, and later learns from it. Events are numbers into the history it was made for."""

    def score(self, event: int) -> Sequence[float] | Scores:
        """The scores of one event, as served: [outputs]."""

    def learn(self, event: int, target: Target) -> None:
        """The label of an event has become known."""


Make: TypeAlias = Callable[[Stream, Task, int], Learner]


def run(name: str, stream: Stream, task: Task, seed: int = 0) -> Ran:
    """One baseline of BASELINES over a history. Raises KeyError for another name."""
    make = BASELINES[name]
    learner = make(stream, task, seed)
    scores = np.empty((len(stream), task.outputs), np.float32)
    targets, arrivals = targets_of(stream.targets), stream.arrivals
    began, cpu = time.perf_counter(), time.process_time()
    arrived = 0
    for event in range(len(stream)):
        while arrived < len(arrivals) and arrivals[arrived].position <= event:
            learner.learn(known := arrivals[arrived].event, targets[known])
            arrived += 1
        scores[event] = learner.score(event)
    return Ran(scores, time.process_time() - cpu, time.perf_counter() - began)


def run_all(
    stream: Stream, task: Task, names: Sequence[str] = (), *, seed: int = 0, processes: int = PROCESSES
) -> Iterator[tuple[str, Ran]]:
    """These baselines (none named: all), each in a process of its own, `processes` at a time; as each is done."""
    chosen = list(names) or list(BASELINES)
    # Spawned: a fork of a process with torch's threads may hang. The slowest, which stand last, begin first.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent, max_tasks_per_child=1)
    with pool:
        running: dict[Future[Ran], str] = {}
        try:
            for name in reversed(chosen):
                running[pool.submit(run, name, stream, task, seed)] = name
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            for future in running:
                future.cancel()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


class _NoChange:
    def __init__(self, stream: Stream, task: Task, seed: int) -> None:
        self._task = task
        self._said = _even(task)

    def score(self, event: int) -> Sequence[float]:
        return self._said

    def learn(self, event: int, target: Target) -> None:
        if self._task.kind is Kind.MULTICLASS:
            self._said = [float(k == number_of(target)) for k in range(self._task.outputs)]
        elif self._task.kind is Kind.MULTILABEL:
            self._said = list(flags_of(target))
        else:
            self._said = [number_of(target)]


class _Frozen:
    """Trained when `FROZEN_EXAMPLES` labels are known, or a quarter of all there will ever be if those are fewer."""

    def __init__(self, stream: Stream, task: Task, seed: int) -> None:
        import torch

        from tailrace.inference.models.tabular.network import TabularNetwork
        from tailrace.retrain.training.loop import score, train

        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._module = TabularNetwork(stream.inputs.numbers.shape[1], stream.optional, stream.buckets, task)
        self._train, self._score = train, score
        self._stream, self._task, self._seed = stream, task, seed
        self._known: list[int] = []
        self._due = min(FROZEN_EXAMPLES, len(stream.arrivals) // 4)
        self._scores: Scores | None = None
        self._before = _even(task)

    def score(self, event: int) -> Sequence[float] | Scores:
        return self._before if self._scores is None else self._scores[event]

    def learn(self, event: int, target: Target) -> None:
        if self._scores is not None:
            return
        self._known.append(event)
        if len(self._known) >= self._due:
            self._scores = self._trained()

    def _trained(self) -> Scores:
        """What the trained model says about every event: it will not change again."""
        task, seed, inputs = self._task, self._seed, self._stream.inputs
        plan, targets = Training(epochs=_FROZEN_EPOCHS), self._stream.targets[self._known]
        known = inputs.take(self._known)
        self._train(self._module, known, targets, plan, task, fresh=None, seed=seed, report=lambda *_: None)
        return self._score(self._module, inputs, task)


class _Labels:
    """A learner of its own for each label of a multi-label task."""

    def __init__(self, each: Sequence[Learner]) -> None:
        self._each = each

    def score(self, event: int) -> Sequence[float]:
        return [learner.score(event)[0] for learner in self._each]

    def learn(self, event: int, target: Target) -> None:
        for learner, flag in zip(self._each, flags_of(target), strict=True):
            learner.learn(event, flag)


class _River:
    """A River learner. Its classes are the indices of the task's; binary ones are False and True."""

    def __init__(self, stream: Stream, task: Task, model: Any) -> None:
        self._features, self._model = stream.features, model
        self._kind, self._outputs = task.kind, task.outputs
        self._even = _even(task)

    def score(self, event: int) -> Sequence[float]:
        row = self._features[event]
        if self._kind is Kind.REGRESSION:
            return [self._model.predict_one(row)]
        said: Mapping[Any, float] = self._model.predict_proba_one(row)
        total = sum(said.values())
        if not total > 0:
            return self._even
        if self._kind is Kind.BINARY:
            return [said.get(True, 0.0) / total]
        return [said.get(k, 0.0) / total for k in range(self._outputs)]

    def learn(self, event: int, target: Target) -> None:
        row = self._features[event]
        if self._kind is Kind.REGRESSION:
            self._model.learn_one(row, number_of(target))
        else:
            self._model.learn_one(row, bool(target) if self._kind is Kind.BINARY else int(number_of(target)))


def _linear(stream: Stream, task: Task, seed: int) -> Learner:
    from river import compose, linear_model, optim, preprocessing

    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    categories = compose.SelectType(str) | compose.FuncTransformer(_one_hot)
    model: Any
    if task.kind is Kind.REGRESSION:
        model = preprocessing.TargetStandardScaler(linear_model.LinearRegression(optim.SGD(_STEP)))
    elif task.kind is Kind.MULTICLASS:
        model = linear_model.SoftmaxRegression(optim.SGD(_STEP))
    else:
        model = linear_model.LogisticRegression(optim.SGD(_STEP))
    return _River(stream, task, (numbers + categories) | model)


def _one_hot(row: Mapping[str, str]) -> dict[str, float]:
    """What OneHotEncoder gives, without its zeros, of which it has one for each value ever seen."""
    return {f"{name}={value}": 1.0 for name, value in row.items()}


def _tree(stream: Stream, task: Task, seed: int) -> Learner:
    from river import tree

    stream = _few_values(stream)
    if task.kind is Kind.REGRESSION:
        return _River(stream, task, tree.HoeffdingAdaptiveTreeRegressor(leaf_model=_leaf(), seed=seed))
    return _River(stream, task, tree.HoeffdingAdaptiveTreeClassifier(seed=seed))


def _forest(stream: Stream, task: Task, seed: int) -> Learner:
    from river import forest

    stream = _few_values(stream)
    if task.kind is Kind.REGRESSION:
        return _River(stream, task, forest.ARFRegressor(n_models=_TREES, leaf_model=_leaf(), seed=seed))
    return _River(stream, task, forest.ARFClassifier(n_models=_TREES, seed=seed))


def _few_values(stream: Stream) -> Stream:
    """The history without categories of many values."""
    values: dict[str, set[str]] = {}
    for row in stream.features:
        for name, value in row.items():
            if isinstance(value, str):
                values.setdefault(name, set()).add(value)
    many = {name for name, found in values.items() if len(found) > _MOST_VALUES}
    if not many:
        return stream
    features = [{name: value for name, value in row.items() if name not in many} for row in stream.features]
    return replace(stream, features=features)


def _leaf() -> Any:
    """The model in the leaves of a regression tree. River's own takes no text, and diverges on large numbers."""
    from river import compose, linear_model, preprocessing

    return compose.SelectType(float) | preprocessing.StandardScaler() | linear_model.LinearRegression()


def _by_label(make: Make) -> Make:
    def labels(stream: Stream, task: Task, seed: int) -> Learner:
        if task.kind is not Kind.MULTILABEL:
            return make(stream, task, seed)
        return _Labels([make(stream, Task(Kind.BINARY), seed) for _ in task.classes])

    return labels


def _even(task: Task) -> list[float]:
    """What is said before anything was learned."""
    from tailrace.declaration.task import base_rate_scores

    return base_rate_scores(task, None)


BASELINES: Mapping[str, Make] = {
    "no change": _NoChange,
    "frozen": _Frozen,
    "logistic": _by_label(_linear),
    "adaptive tree": _by_label(_tree),
    "forest": _by_label(_forest),
}
"""Name -> how its learner is made, the cheapest first."""
