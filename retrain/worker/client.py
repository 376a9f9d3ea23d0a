"""The parent's side of the training process: starts it early, gives it jobs, and survives whatever happens to it.

    no process --start--> importing --Ready--> idle --Job--> training --Candidate--> idle
    any state --death, failure, over budget, close--> no process

Errors: TrainingFailed(reason, detail); `reason` (a metric label) is one of
diverged, unfit, out_of_memory, over_budget, killed, error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Protocol, cast

from tailrace.errors import TailraceError
from tailrace.retrain.worker.protocol import (
    Begin,
    Candidate,
    Failure,
    Hello,
    Job,
    Learn,
    Learned,
    Message,
    Progress,
    receive,
    send,
)


class TrainingFailed(TailraceError):
    """A run gave no candidate; the next one gets a new process."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Trains(Protocol):
    """Who trains for a retrainer: `Trainer`, or whoever does it in the retrainer's own process (tests of pipelines)."""

    def start(self) -> None:
        """Get ready; returns at once."""

    def train(self, job: Job, on_progress: Callable[[Progress], None] = ...) -> Candidate:
        """Run one job and wait for it. Raises TrainingFailed."""

    def learn(self, said: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Take one online update and wait for it. Raises TrainingFailed."""

    def close(self) -> None:
        """End for good; a run under way fails."""


class Trainer:
    """Owns the training process. `close` and `pid` may be used while another thread is in `train`.

    `loader` ("module:function") is imported in the process and called with `reference`; it gives the declared pipeline.
    """

    def __init__(self, loader: str, reference: str, threads: int = 1, nice: int = 5, ranks: int = 1) -> None:
        self._hello = Hello(loader, reference, threads, nice, ranks)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The process's id; None when there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process if there is none; returns at once, the process imports meanwhile."""
        self._living()

    def _living(self) -> subprocess.Popen[bytes]:
        """The process, started if need be. Raises TrainingFailed when this trainer is closed."""
        with self._lock:
            if self._closed:
                raise TrainingFailed("killed", "the trainer was closed")
            if self._process is None or self._process.poll() is not None:
                self._forget()
                self._process = self._spawn()
            return self._process

    def _spawn(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tailrace.retrain.worker.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # what we find, it finds
            start_new_session=True,  # Ctrl-C in the terminal is for the retrainer, which then closes this process
        )
        with suppress(OSError):  # it is dead already: train says so
            send(cast("IO[bytes]", process.stdin), self._hello)
        return process

    def train(self, job: Job, on_progress: Callable[[Progress], None] = lambda progress: None) -> Candidate:
        """Run one job and wait for it. Raises TrainingFailed."""
        answer = self._ask([job], job.plan.budget_s, ", which Training(budget_s) sets", on_progress)
        assert isinstance(answer, Candidate)
        return answer

    def learn(self, said: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Take one online update and wait for it. Raises TrainingFailed.

        When the process that knew the chain has ended, it fails as `killed`: the chain is to be begun anew.
        """
        if not isinstance(said[0], Begin) and (self._process is None or self._process.poll() is not None):
            raise TrainingFailed("killed", "the training process ended between two updates")
        answer = self._ask(said, budget_s, "", lambda progress: None)
        assert isinstance(answer, Learned)
        return answer

    def _ask(
        self, said: Sequence[Message], budget_s: float, set_by: str, on_progress: Callable[[Progress], None]
    ) -> Candidate | Learned:
        process = self._living()
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(budget_s, stop)
        timer.start()
        try:
            return _converse(process, said, on_progress)
        except (OSError, EOFError, ValueError, TrainingFailed) as error:
            process.kill()
            late = f"not done after {budget_s:g} s{set_by}" if overdue.is_set() else None
            raise _explained(error, process.wait(), late) from None
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process for good; a run under way fails, and so does one that was about to start."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._forget()

    def _forget(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            _close(process.stdin)
            _close(process.stdout)


def _converse(
    process: subprocess.Popen[bytes], said: Sequence[Message], on_progress: Callable[[Progress], None]
) -> Candidate | Learned:
    source, sink = cast("IO[bytes]", process.stdout), cast("IO[bytes]", process.stdin)
    for message in said:
        send(sink, message)
    while (answer := receive(source)) is not None:
        match answer:
            case Candidate() | Learned():
                return answer
            case Failure():
                raise TrainingFailed(answer.reason, answer.detail)
            case Progress():
                on_progress(answer)
    raise EOFError("it closed its output")


def _explained(error: Exception, code: int, late: str | None) -> TrainingFailed:
    if late is not None:
        return TrainingFailed("over_budget", late)
    if isinstance(error, TrainingFailed):
        return error
    ended = f"by signal {-code} (too little memory?)" if code < 0 else f"with code {code}"
    return TrainingFailed("killed", f"the training process ended {ended}: {error}")


def _close(pipe: IO[bytes] | None) -> None:
    with suppress(OSError):  # unsent bytes to a process that is gone
        if pipe is not None:
            pipe.close()
