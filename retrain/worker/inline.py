"""Training in the retrainer's own process: for tests of pipelines, which need not be importable, and for debuggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.worker.client import TrainingFailed
from tailrace.retrain.worker.protocol import Begin, Candidate, Job, Learn, Learned, Progress

if TYPE_CHECKING:
    from tailrace.retrain.worker.online_trainer import OnlineTrainer

T = TypeVar("T")


class InlineTrainer:
    """Implementation of `tailrace.retrain.worker.client.TrainingBackend`. It does not enforce time budgets."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._online: OnlineTrainer | None = None

    def start(self) -> None:
        """Do nothing: there is no process to start."""

    def train(self, job: Job, on_progress: Callable[[Progress], None] = lambda progress: None) -> Candidate:
        """Run one job and return its candidate. Raises TrainingFailed."""
        from tailrace.retrain.training.distributed import Group
        from tailrace.retrain.worker.candidate import candidate

        def report(step: int, steps: int, loss: float) -> None:
            on_progress(Progress(step, steps, loss))

        return _with_threads(lambda: candidate(self._spec, job, report, Group()), job.plan.threads)

    def learn(self, messages: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Take one online update and return its result; `budget_s` is ignored. Raises TrainingFailed."""
        return _with_threads(lambda: self._answer(messages), 1)

    def _answer(self, messages: Sequence[Begin | Learn]) -> Learned:
        from tailrace.retrain.worker.online_trainer import OnlineTrainer

        *begins, learn = messages
        for begin in begins:
            assert isinstance(begin, Begin)
            self._online = OnlineTrainer(self._spec)
            self._online.begin(begin)
        assert self._online is not None
        assert isinstance(learn, Learn)
        return self._online.learn(learn)

    def close(self) -> None:
        """Do nothing: there is no process to end."""


def _with_threads(train: Callable[[], T], threads: int) -> T:
    """Train as the training process does: with this number of torch threads, and failures as TrainingFailed."""
    import torch

    from tailrace.retrain.worker.process import failure_of

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return train()
    except Exception as error:
        failure = failure_of(error)
        raise TrainingFailed(failure.reason, failure.detail) from error
    finally:
        torch.set_num_threads(before)
