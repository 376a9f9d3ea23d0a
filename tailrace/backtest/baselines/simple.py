"""Baselines without River: the last known label, and a model that is trained once. Starting the model imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.backtest.baselines.learner import Scores, initial_scores
from tailrace.backtest.history.arrays import Stream
from tailrace.declaration.task import Kind, Target, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.targets import flags_of, number_of

FROZEN_EXAMPLES = 2_000
_FROZEN_EPOCHS = 5  # best mean log-loss on electricity and covertype among 2, 3, 5 and 10


class NoChange:
    """Predict the label that became known last; base-rate scores before the first label."""

    def __init__(self, stream: Stream, task: Task, seed: int) -> None:
        self._task = task
        self._scores = initial_scores(task)

    def score(self, event: int) -> Sequence[float]:
        """Return the last known label as scores."""
        return self._scores

    def learn(self, event: int, target: Target) -> None:
        """Replace the last known label."""
        if self._task.kind is Kind.MULTICLASS:
            self._scores = [float(k == number_of(target)) for k in range(self._task.outputs)]
        elif self._task.kind is Kind.MULTILABEL:
            self._scores = list(flags_of(target))
        else:
            self._scores = [number_of(target)]


class Frozen:
    """The default model, trained once on the first `FROZEN_EXAMPLES` labels (a quarter of all labels if fewer)."""

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
        self._examples: list[int] = []
        self._needed = min(FROZEN_EXAMPLES, len(stream.arrivals) // 4)
        self._initial = initial_scores(task)
        self._scores: Scores | None = None

    def score(self, event: int) -> Sequence[float] | Scores:
        """Return the scores of the trained model; base-rate scores before the training."""
        return self._initial if self._scores is None else self._scores[event]

    def learn(self, event: int, target: Target) -> None:
        """Collect an example, and train once there are enough."""
        if self._scores is not None:
            return
        self._examples.append(event)
        if len(self._examples) >= self._needed:
            self._scores = self._trained_scores()

    def _trained_scores(self) -> Scores:
        """Train, and score every event of the history at once, because the model does not change any more."""
        task, seed, inputs = self._task, self._seed, self._stream.inputs
        plan, targets = Training(epochs=_FROZEN_EPOCHS), self._stream.targets[self._examples]
        examples = inputs.take(self._examples)
        self._train(self._module, examples, targets, plan, task, fresh=None, seed=seed, report=lambda *_: None)
        return self._score(self._module, inputs, task)
