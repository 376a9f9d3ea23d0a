"""Training in the retrainer's own process: for tests of pipelines, which need be no files, and for debuggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from retrain.encoding import Declared
from retrain.frames import Begin, Candidate, Job, Learn, Learned, Progress
from retrain.trainer import TrainingFailed

if TYPE_CHECKING:
    from retrain.twin import Twin

T = TypeVar("T")


class InProcess:
    """Implements `retrain.trainer.Trains`. A training over budget is not stopped."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._twin: Twin | None = None

    def start(self) -> None:
        """Nothing is to be started."""

    def train(self, job: Job, on_progress: Callable[[Progress], None] = lambda progress: None) -> Candidate:
        """Run one job. Raises TrainingFailed."""
        from retrain.candidates import candidate
        from retrain.distributed import Group

        def report(step: int, steps: int, loss: float) -> None:
            on_progress(Progress(step, steps, loss))

        return _alone(lambda: candidate(self._declared, job, report, Group()), job.plan.threads)

    def learn(self, said: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Take one online update. Raises TrainingFailed."""
        return _alone(lambda: self._answer(said), 1)

    def _answer(self, said: Sequence[Begin | Learn]) -> Learned:
        from retrain.twin import Twin

        *begins, learn = said
        for begin in begins:
            assert isinstance(begin, Begin)
            self._twin = Twin(self._declared)
            self._twin.begin(begin)
        assert self._twin is not None
        assert isinstance(learn, Learn)
        return self._twin.learn(learn)

    def close(self) -> None:
        """Nothing is to be ended."""


def _alone(train: Callable[[], T], threads: int) -> T:
    """Train as the training process does: with so many threads of torch's, and with failures in the same words."""
    import torch

    from retrain.child import failure_of

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return train()
    except Exception as error:
        failure = failure_of(error)
        raise TrainingFailed(failure.reason, failure.detail) from error
    finally:
        torch.set_num_threads(before)
