"""Training by several processes: equal results to one process, failures and ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import retrain_pipeline as tiny
from support.jobs import job
from support.waiting import PATIENCE_S, until

from tailrace.declaration.training import Training
from tailrace.retrain.training.distributed import Group
from tailrace.retrain.worker.client import Trainer, TrainingFailed
from tailrace.retrain.worker.protocol import Candidate, Job


@contextmanager
def trainer(ranks: int, name: str = "pipeline") -> Iterator[Trainer]:
    one = Trainer(tiny.LOADER, f"support.retrain_pipeline:{name}", ranks=ranks)
    one.start()
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[Trainer]:
    with trainer(1) as one:
        yield one


@pytest.fixture(scope="module")
def together() -> Iterator[Trainer]:
    with trainer(2) as one:
        yield one


def plan(**changes: object) -> Training:
    return msgspec.structs.replace(tiny.PLAN, epochs=5, **changes)


def assert_same(one: Candidate, other: Candidate) -> None:
    """Losses and scores agree to 1e-4."""
    assert [step for step, _ in one.losses] == [step for step, _ in other.losses]
    np.testing.assert_allclose([loss for _, loss in one.losses], [loss for _, loss in other.losses], rtol=0, atol=1e-4)
    scores, others = (np.frombuffer(candidate.scores, np.float32) for candidate in (one, other))
    np.testing.assert_allclose(scores, others, rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 7},  # shares of 4 and 3; the last batch of each pass, 6 rows
        {"batch_size": 299},  # a last batch of one row, of which one rank has none
        {"ema": 0.9, "patience": 2, "schedule": "one_cycle"},
    ],
)
def test_two_processes_come_to_what_one_comes_to(alone: Trainer, together: Trainer, changes: dict[str, object]) -> None:
    """Loss curve and scores of two gloo processes equal those of one within 1e-4, for all batch sizes."""
    assert_same(alone.train(job(plan(**changes))), together.train(job(plan(**changes))))


@pytest.mark.long
def test_a_warm_run_is_shared_too(alone: Trainer, together: Trainer) -> None:
    """In a warm run both processes start from the champion and replay the same rows."""
    warm = job(champion=alone.train(job(plan())).state, fresh=100)
    assert_same(alone.train(warm), together.train(warm))


@pytest.mark.long
def test_two_processes_repeat(together: Trainer) -> None:
    """A repeated run by two processes gives equal bytes."""
    assert together.train(job(plan())).state == together.train(job(plan())).state


@pytest.mark.long
def test_parameters_that_take_no_part_are_left_alone() -> None:
    """A network with an idle layer trains with two processes as with one."""
    candidates: list[Candidate] = []
    for ranks in (1, 2):
        with trainer(ranks, "idle") as one:
            candidates.append(one.train(job(plan())))
    assert_same(*candidates)


@pytest.mark.long
def test_a_share_of_one_row_is_no_failure() -> None:
    """A network with BatchNorm takes all steps of two processes, although shares have one row."""
    with trainer(2, "normalised") as one:
        for batch_size in (
            149,  # last batch of two rows: one for each rank
            299,  # last batch of one row: none for one rank
        ):
            candidate = one.train(job(plan(batch_size=batch_size)))
            assert candidate.steps == 5 * -(-300 // batch_size)
            assert np.isfinite(np.frombuffer(candidate.scores, np.float32)).all()


@pytest.mark.long
def test_a_failure_of_any_rank_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure ends both processes; the next run starts in new ones, and succeeds if it can."""
    monkeypatch.setenv("MOOD", "memory")
    with trainer(2, "stubborn") as one:
        with pytest.raises(TrainingFailed) as failed:
            one.train(job(plan()))
        assert failed.value.reason == "out_of_memory"
        monkeypatch.setenv("MOOD", "diverge")
        with pytest.raises(TrainingFailed) as failed:
            one.train(job(plan()))
        assert failed.value.reason == "diverged"
        monkeypatch.setenv("MOOD", "fine")
        assert one.train(job(plan())).steps == 50


@contextmanager
def asleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Trainer, int, list[TrainingFailed]]]:
    """A trainer whose two processes sleep in a run, the process id of rank 1, and the failures of the run."""
    monkeypatch.setenv("MOOD", "slow")
    failures: list[TrainingFailed] = []

    def work(one: Trainer, some: Job) -> None:
        try:
            one.train(some)
        except TrainingFailed as failure:
            failures.append(failure)

    with trainer(2, "stubborn") as one:
        run = Thread(target=work, args=(one, job(plan())))
        run.start()
        until(lambda: bool(one.pid and _children(one.pid)))
        assert one.pid is not None
        yield one, _children(one.pid)[0], failures
        run.join(PATIENCE_S)
        assert len(failures) == 1


@pytest.mark.long
def test_a_killed_rank_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The death of another rank ends the run at once, although rank 0 is busy."""
    with asleep(monkeypatch) as (_, rank, failures):
        os.kill(rank, signal.SIGKILL)
    assert failures[0].reason == "killed"
    assert "rank 1 of the training processes ended with code -9" in failures[0].detail


@pytest.mark.long
def test_ranks_end_with_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks end with rank 0, however it dies."""
    with asleep(monkeypatch) as (one, rank, _):
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        until(lambda: not _alive(rank))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 9))
def test_shares_are_the_batch(sizes: list[int], ranks: int) -> None:
    """The ranks' shares of a batch hold each row once, and the mean of their weighted means is the batch's mean."""
    batches = [torch.arange(size) for size in sizes]
    shares = [Group(rank, ranks).shares(batches) for rank in range(ranks)]
    for n, batch in enumerate(batches):
        counting = [share[n] for share, weights in shares if weights[n] > 0]
        assert sorted(torch.cat(counting).tolist()) == batch.tolist()
        means = [float(share[n].double().mean()) * weights[n] for share, weights in shares]
        assert sum(means) / ranks == pytest.approx(float(batch.double().mean()))


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _read(task / "children").split()]


def _alive(pid: int) -> bool:
    status = _read(Path(f"/proc/{pid}/status"))
    return bool(status) and "State:\tZ" not in status


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
