"""Training in the retrainer's own process: for tests of pipelines, which need be no files, and for debuggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.worker.client import TrainingFailed
from tailrace.retrain.worker.protocol import Begin, Candidate, Job, Learn, Learned, Progress

if TYPE_CHECKING:
    from tailrace.retrain.worker.online_trainer import OnlineTrainer

T = TypeVar("T")


class InProcess:
    """Implements `tailrace.retrain.worker.client.Trains`. A training over budget is not stopped."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._twin: OnlineTrainer | None = None

    def start(self) -> None:
        """Nothing is to be started."""

    def train(self, job: Job, on_progress: Callable[[Progress], None] = lambda progress: None) -> Candidate:
        """Run one job. Raises TrainingFailed."""
        from tailrace.retrain.training.distributed import Group
        from tailrace.retrain.worker.candidate import candidate

        def report(step: int, steps: int, loss: float) -> None:
            on_progress(Progress(step, steps, loss))

        return _alone(lambda: candidate(self._spec, job, report, Group()), job.plan.threads)

    def learn(self, said: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Take one online update. Raises TrainingFailed."""
        return _alone(lambda: self._answer(said), 1)

    def _answer(self, said: Sequence[Begin | Learn]) -> Learned:
        from tailrace.retrain.worker.online_trainer import OnlineTrainer

        *begins, learn = said
        for begin in begins:
            assert isinstance(begin, Begin)
            self._twin = OnlineTrainer(self._spec)
            self._twin.begin(begin)
        assert self._twin is not None
        assert isinstance(learn, Learn)
        return self._twin.learn(learn)

    def close(self) -> None:
        """Nothing is to be ended."""


def _alone(train: Callable[[], T], threads: int) -> T:
    """Train as the training process does: with so many threads of torch's, and with failures in the same words."""
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
