"""The champion's twin: a module that learns online, chunk by chunk, and says what it has become.

It lives in a process beside the serving ones (`retrain.child`), or in a backtest's own. Importing this imports torch.
"""

from __future__ import annotations

import time

import numpy as np
from torch import nn

from inference.model import build
from inference.release import load_state, serialise
from retrain.encoding import Declared, encoded, golden
from retrain.frames import Begin, Learn, Learned
from retrain.online import Learner
from retrain.training import score


class Unfit(Exception):
    """The weights to begin with are those of another module than is declared now."""


class Twin:
    """Answers Begin and Learn for one pipeline. Raises what goes wrong, Diverged among it."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._learner: Learner | None = None

    @property
    def module(self) -> nn.Module:
        """What it has become; it changes with the next chunk."""
        assert self._learner is not None
        return self._learner.module

    def begin(self, begin: Begin) -> None:
        """Start a chain. Raises Unfit."""
        declared = self._declared
        module = build(declared.model, declared.features, declared.task, begin.seed)
        if begin.state is not None:
            try:
                module.load_state_dict(load_state(begin.state))
            except RuntimeError as error:  # names or shapes differ
                raise Unfit(f"the champion is another module than is declared now: {error}") from None
        self._learner = Learner(module, declared.task, begin.plan, begin.seed)
        if begin.remembered.targets:
            rows = begin.remembered
            self._learner.remember(encoded(declared, rows), np.array(rows.targets, np.float32))

    def learn(self, learn: Learn) -> Learned:
        """Take one update."""
        assert self._learner is not None, "Begin comes before Learn"
        began = time.perf_counter()
        inputs, targets = encoded(self._declared, learn.rows), np.array(learn.rows.targets, np.float32)
        before = self._learner.learn(inputs, targets)
        after = score(self.module, inputs, self._declared.task)
        return Learned(
            state=serialise(self.module.state_dict()),
            before=before.scores.tobytes(),
            after=after.tobytes(),
            golden=golden(inputs, after),
            loss=before.loss,
            seconds=time.perf_counter() - began,
        )
