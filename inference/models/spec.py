"""Module construction and the conversion of logits into scores. Importing this does not import torch; building does.

A *factory* is any callable that returns an `nn.Module`. It is called without arguments if its signature allows that,
else with (features, task).

`module(numbers, categories)` takes numbers [n, F] float32, NaN where a value is missing, and categories [n, C] int64,
and returns raw logits, or values for regression, of shape [n, task.outputs]. A module that learns by more than gradient
steps is an `OnlineModule`: see `tailrace.inference.models.hooks`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.declaration.pipeline import ModelFactory, Pipeline
from tailrace.declaration.task import Task
from tailrace.inference.models.encoding import Features

if TYPE_CHECKING:
    from torch import nn


class ModelSpec(NamedTuple):
    """Features, task and factory of a pipeline's module; the factory None builds the default model."""

    features: Features
    task: Task
    factory: ModelFactory | None = None

    @staticmethod
    @lru_cache(maxsize=64)
    def of(pipeline: Pipeline) -> ModelSpec:
        """Return the spec that a pipeline declares; repeated calls for a pipeline return the same object."""
        return ModelSpec(Features.of(pipeline.schema.event), pipeline.task, pipeline.model)

    def build(self, seed: int = 0) -> nn.Module:
        """Build a fresh module, the same for the same seed; the process's random state is not changed."""
        import torch

        make: Callable[..., nn.Module] = self.factory or default_model
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return make() if _takes_nothing(make) else make(self.features, self.task)


def default_model(features: Features, task: Task) -> nn.Module:
    """Build the default model, which needs no tuning: `tailrace.inference.models.tabular.network.TabularNetwork`."""
    from tailrace.inference.models.tabular.network import TabularNetwork

    return TabularNetwork(len(features.numbers), features.optional, features.buckets, task)


def _takes_nothing(make: Callable[..., Any]) -> bool:
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    return True
