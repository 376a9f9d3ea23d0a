"""Baselines of River, untuned. Starting one imports River.

A multi-label task has one learner per label. Missing numbers are left out of the row: linear models take them as the
mean (0 once standardised), trees follow the branch that most examples took. Trees ignore categories of more than 256
values, because River makes a branch for each value, which is slower and less accurate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from tailrace.backtest.baselines.learner import LearnerFactory, ReferenceLearner, initial_scores
from tailrace.backtest.history.arrays import Stream
from tailrace.declaration.task import Kind, Target, Task
from tailrace.errors import MissingExtra
from tailrace.inference.models.targets import flags_of, number_of

_TREES = 10
_MOST_VALUES = 256  # per category of a tree
_LEARNING_RATE = 0.005


def check_river() -> None:
    """Raise MissingExtra, which names the pip command, unless River is installed."""
    if find_spec("river") is None:
        raise MissingExtra("`tailrace backtest --baselines`", "River", "river")


class _PerLabel:
    """Multi-label learner: one binary learner per label."""

    def __init__(self, learners: Sequence[ReferenceLearner]) -> None:
        self._learners = learners

    def score(self, event: int) -> Sequence[float]:
        return [learner.score(event)[0] for learner in self._learners]

    def learn(self, event: int, target: Target) -> None:
        for learner, flag in zip(self._learners, flags_of(target), strict=True):
            learner.learn(event, flag)


class _River:
    """Adapter of a River model. River's classes are class indices, or False and True for a binary task."""

    def __init__(self, stream: Stream, task: Task, model: Any) -> None:
        self._features, self._model = stream.features, model
        self._kind, self._outputs = task.kind, task.outputs
        self._initial = initial_scores(task)

    def score(self, event: int) -> Sequence[float]:
        row = self._features[event]
        if self._kind is Kind.REGRESSION:
            return [self._model.predict_one(row)]
        probabilities: Mapping[Any, float] = self._model.predict_proba_one(row)
        total = sum(probabilities.values())
        if not total > 0:
            return self._initial
        if self._kind is Kind.BINARY:
            return [probabilities.get(True, 0.0) / total]
        return [probabilities.get(k, 0.0) / total for k in range(self._outputs)]

    def learn(self, event: int, target: Target) -> None:
        row = self._features[event]
        if self._kind is Kind.REGRESSION:
            self._model.learn_one(row, number_of(target))
        else:
            self._model.learn_one(row, bool(target) if self._kind is Kind.BINARY else int(number_of(target)))


def _linear(stream: Stream, task: Task, seed: int) -> ReferenceLearner:
    from river import compose, linear_model, optim, preprocessing

    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    categories = compose.SelectType(str) | compose.FuncTransformer(_one_hot)
    model: Any
    if task.kind is Kind.REGRESSION:
        model = preprocessing.TargetStandardScaler(linear_model.LinearRegression(optim.SGD(_LEARNING_RATE)))
    elif task.kind is Kind.MULTICLASS:
        model = linear_model.SoftmaxRegression(optim.SGD(_LEARNING_RATE))
    else:
        model = linear_model.LogisticRegression(optim.SGD(_LEARNING_RATE))
    return _River(stream, task, (numbers + categories) | model)


def _one_hot(row: Mapping[str, str]) -> dict[str, float]:
    """Encode categories as River's OneHotEncoder does, but without a zero for every other value seen so far."""
    return {f"{name}={value}": 1.0 for name, value in row.items()}


def _tree(stream: Stream, task: Task, seed: int) -> ReferenceLearner:
    from river import tree

    stream = _without_large_categories(stream)
    if task.kind is Kind.REGRESSION:
        return _River(stream, task, tree.HoeffdingAdaptiveTreeRegressor(leaf_model=_leaf_model(), seed=seed))
    return _River(stream, task, tree.HoeffdingAdaptiveTreeClassifier(seed=seed))


def _forest(stream: Stream, task: Task, seed: int) -> ReferenceLearner:
    from river import forest

    stream = _without_large_categories(stream)
    if task.kind is Kind.REGRESSION:
        return _River(stream, task, forest.ARFRegressor(n_models=_TREES, leaf_model=_leaf_model(), seed=seed))
    return _River(stream, task, forest.ARFClassifier(n_models=_TREES, seed=seed))


def _without_large_categories(stream: Stream) -> Stream:
    """Return the history without categories of more than `_MOST_VALUES` values."""
    values: dict[str, set[str]] = {}
    for row in stream.features:
        for name, value in row.items():
            if isinstance(value, str):
                values.setdefault(name, set()).add(value)
    large = {name for name, distinct in values.items() if len(distinct) > _MOST_VALUES}
    if not large:
        return stream
    features = [{name: value for name, value in row.items() if name not in large} for row in stream.features]
    return replace(stream, features=features)


def _leaf_model() -> Any:
    """Return the model in the leaves of a regression tree. River's own rejects text and diverges on large numbers."""
    from river import compose, linear_model, preprocessing

    return compose.SelectType(float) | preprocessing.StandardScaler() | linear_model.LinearRegression()


def _per_label(factory: LearnerFactory) -> LearnerFactory:
    """Extend a factory to multi-label tasks, with one binary learner per label."""

    def create(stream: Stream, task: Task, seed: int) -> ReferenceLearner:
        if task.kind is not Kind.MULTILABEL:
            return factory(stream, task, seed)
        return _PerLabel([factory(stream, Task(Kind.BINARY), seed) for _ in task.classes])

    return create


linear, tree, forest = _per_label(_linear), _per_label(_tree), _per_label(_forest)
