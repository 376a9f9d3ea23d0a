"""Client of the training process in the retrainer: starts it early, gives it jobs, and survives its failures.

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
    FrameTooLarge,
    Hello,
    Job,
    Learn,
    Learned,
    Message,
    Progress,
    receive,
    send,
)
from tailrace.retrain.worker.time_budget import time_budget


class TrainingFailed(TailraceError):
    """A run or update failed; the next one gets a new process."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class TrainingBackend(Protocol):
    """Training for a retrainer: by a process (`Trainer`), or in the retrainer's own (`inline.InlineTrainer`)."""

    def start(self) -> None:
        """Prepare for the first job; returns at once."""

    def train(self, job: Job, on_progress: Callable[[Progress], None] = ...) -> Candidate:
        """Wait until one job has run, and return its candidate. Raises TrainingFailed."""

    def learn(self, messages: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Wait until one online update has been taken, and return its result. Raises TrainingFailed.

        `messages`: one Learn, behind a Begin if it starts a chain. `budget_s`: longest duration in seconds.
        """

    def close(self) -> None:
        """End for good; a run under way fails."""


class Trainer:
    """Owner of the training process. `close` and `pid` may be used while another thread is in `train`.

    `loader` ("module:function") is imported in the process and called with `reference`; it returns the declared
    pipeline.
    """

    def __init__(self, loader: str, reference: str, threads: int = 1, nice: int = 5, ranks: int = 1) -> None:
        self._hello = Hello(loader, reference, threads, nice, ranks)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id; None while there is no process."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process if there is none; returns at once, while the process still imports."""
        self._running_process()

    def _running_process(self) -> subprocess.Popen[bytes]:
        """Return the process, started if necessary. Raises TrainingFailed if this trainer is closed."""
        with self._lock:
            if self._closed:
                raise TrainingFailed("killed", "the trainer was closed")
            if self._process is None or self._process.poll() is not None:
                self._discard()
                self._process = self._spawn()
            return self._process

    def _spawn(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tailrace.retrain.worker.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # it can import what we can
            start_new_session=True,  # Ctrl-C in the terminal reaches the retrainer, which then closes this process
        )
        try:
            with suppress(OSError):  # it has ended already: `train` reports that
                send(cast("IO[bytes]", process.stdin), self._hello)
        except BaseException:
            _end(process)
            raise
        return process

    def train(self, job: Job, on_progress: Callable[[Progress], None] = lambda progress: None) -> Candidate:
        """Run one job and return its candidate. Raises TrainingFailed, also if it exceeds `plan.budget_s` seconds."""
        answer = self._ask([job], job.plan.budget_s, ", which Training(budget_s) sets", on_progress)
        assert isinstance(answer, Candidate)
        return answer

    def learn(self, messages: Sequence[Begin | Learn], budget_s: float) -> Learned:
        """Take one online update and return its result. Raises TrainingFailed, also after `budget_s` seconds.

        When the process that held the chain has ended, the reason is `killed`: the chain must begin again.
        """
        if not isinstance(messages[0], Begin) and (self._process is None or self._process.poll() is not None):
            raise TrainingFailed("killed", "the training process ended between two updates")
        answer = self._ask(messages, budget_s, "", lambda progress: None)
        assert isinstance(answer, Learned)
        return answer

    def _ask(
        self, messages: Sequence[Message], budget_s: float, set_by: str, on_progress: Callable[[Progress], None]
    ) -> Candidate | Learned:
        process = self._running_process()
        with time_budget(process, budget_s) as exceeded:
            try:
                return _converse(process, messages, on_progress)
            except (OSError, EOFError, ValueError, TrainingFailed) as error:
                process.kill()
                late = f"not done after {budget_s:g} s{set_by}" if exceeded.is_set() else None
                raise _explained(error, process.wait(), late) from None

    def close(self) -> None:
        """End the process for good; a run that is under way or about to start fails."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._discard()

    def _discard(self) -> None:
        """Wait for a process that ends, and close its pipes."""
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            _close(process.stdin)
            _close(process.stdout)


def _converse(
    process: subprocess.Popen[bytes], messages: Sequence[Message], on_progress: Callable[[Progress], None]
) -> Candidate | Learned:
    """Send the messages, wait, and return the reply to the last one. Raises TrainingFailed for a Failure."""
    source, sink = cast("IO[bytes]", process.stdout), cast("IO[bytes]", process.stdin)
    try:
        for message in messages:
            send(sink, message)
    except FrameTooLarge as error:
        raise TrainingFailed("error", str(error)) from error
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


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    _close(process.stdin)
    _close(process.stdout)


def _close(pipe: IO[bytes] | None) -> None:
    with suppress(OSError):  # unsent bytes to a process that has ended
        if pipe is not None:
            pipe.close()
