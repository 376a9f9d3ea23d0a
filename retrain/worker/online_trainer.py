"""The champion's twin: a module that learns online, chunk by chunk, and says what it has become.

It lives in a process of its own (`retrain.worker.process`), or in a backtest's own. Importing this imports torch.
"""

from __future__ import annotations

import time

import numpy as np
from torch import nn

from tailrace.errors import TailraceError
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import load_state, serialise
from tailrace.retrain.online.learner import Learner
from tailrace.retrain.training.dataset import encoded, golden
from tailrace.retrain.training.loop import score
from tailrace.retrain.worker.protocol import Begin, Learn, Learned


class Unfit(TailraceError):
    """The weights to begin with are those of another module than is declared now."""


class OnlineTrainer:
    """Answers Begin and Learn for one pipeline. Raises what goes wrong, Diverged among it."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._learner: Learner | None = None

    @property
    def module(self) -> nn.Module:
        """What it has become; it changes with the next chunk."""
        assert self._learner is not None
        return self._learner.module

    def begin(self, begin: Begin) -> None:
        """Start a chain. Raises Unfit."""
        spec = self._spec
        module = spec.build(begin.seed)
        if begin.state is not None:
            try:
                module.load_state_dict(load_state(begin.state))
            except RuntimeError as error:  # names or shapes differ
                raise Unfit(f"the champion is another module than is declared now: {error}") from None
        self._learner = Learner(module, spec.task, begin.plan, begin.seed)
        if begin.remembered.targets:
            rows = begin.remembered
            self._learner.remember(encoded(spec, rows), np.array(rows.targets, np.float32))

    def learn(self, learn: Learn) -> Learned:
        """Take one update."""
        assert self._learner is not None, "Begin comes before Learn"
        began = time.perf_counter()
        inputs, targets = encoded(self._spec, learn.rows), np.array(learn.rows.targets, np.float32)
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
