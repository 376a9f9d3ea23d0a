"""Online updates in the training process: carries out Begin and Learn messages. Importing this imports torch."""

from __future__ import annotations

import time

from torch import nn

from tailrace.errors import TailraceError
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.models.targets import target_array
from tailrace.inference.releases.manifest import load_state, serialise
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.dataset import encoded, golden
from tailrace.retrain.training.loop import score
from tailrace.retrain.worker.protocol import Begin, Learn, Learned


class Unfit(TailraceError):
    """The weights to begin with do not fit the declared module."""


class OnlineTrainer:
    """Carries out Begin and Learn for one pipeline. Methods raise any error of training, including Diverged."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._learner: Learner | None = None

    @property
    def module(self) -> nn.Module:
        """The module as it is now; the next update changes it in place."""
        assert self._learner is not None
        return self._learner.module

    def begin(self, begin: Begin) -> None:
        """Start a chain of updates from the given or fresh weights, and fill its replay buffer. Raises Unfit."""
        spec = self._spec
        module = spec.build(begin.seed)
        if begin.state is not None:
            try:
                module.load_state_dict(load_state(begin.state))
            except RuntimeError as error:  # names or shapes differ
                raise Unfit(f"the champion's weights do not fit the declared module: {error}") from None
        self._learner = Learner(module, spec.task, begin.plan, begin.seed)
        if begin.remembered.targets:
            rows = begin.remembered
            self._learner.remember(encoded(spec, rows), target_array(rows.targets, spec.task))

    def learn(self, learn: Learn) -> Learned:
        """Take one update; return the weights after it, and the scores of its rows before and after."""
        assert self._learner is not None, "Begin comes before Learn"
        began = time.perf_counter()
        inputs, targets = encoded(self._spec, learn.rows), target_array(learn.rows.targets, self._spec.task)
        before = self._learner.learn(inputs, targets)
        after = score(self.module, inputs, self._spec.task)
        return Learned(
            state=serialise(self.module.state_dict()),
            before=before.scores.tobytes(),
            after=after.tobytes(),
            golden=golden(inputs, after),
            loss=before.loss,
            seconds=time.perf_counter() - began,
        )
