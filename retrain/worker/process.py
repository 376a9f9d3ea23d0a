"""The training process: `python -m tailrace.retrain.worker.process`, started by `tailrace.retrain.worker.client`.

It stays alive from run to run, because importing torch takes longer than most runs. It speaks
`tailrace.retrain.worker.protocol` over standard input and output. It ends when its input closes, also in the middle of
a run, so that it never outlives the retrainer. After a failure it ends too; the next run gets a fresh process.
"""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
import time
from typing import IO, TYPE_CHECKING

from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.worker.candidate import candidate
from tailrace.retrain.worker.protocol import (
    Begin,
    Failure,
    Hello,
    Job,
    Learn,
    Message,
    Progress,
    Ready,
    receive,
    send,
)

if TYPE_CHECKING:
    from tailrace.retrain.worker.online_trainer import OnlineTrainer
    from tailrace.retrain.worker.ranks import RankLeader

_RANK_REPORT_S = 0.5  # for another rank that failed first to report why, before this one reports the consequence


def main() -> int:
    """Carry out messages until the input closes, which ends the process with exit code 0.

    Returns 1 after an error, which was sent as a Failure, and 0 if the output was closed.
    """
    source, writer = sys.stdin.buffer, _FrameWriter(own_output())
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(source, inbox), daemon=True).start()
    leader: RankLeader | None = None
    try:
        hello = inbox.get()
        assert isinstance(hello, Hello)
        leader = _rank_leader(hello, writer)
        spec = prepare(hello)
        online = _online_trainer(spec)
        writer.write(Ready(_device()))
        while True:
            match inbox.get():
                case Job() as job:
                    writer.write(candidate(spec, job, writer.report, leader.distribute(job)))
                case Begin() as begin:
                    online.begin(begin)
                case Learn() as learn:
                    writer.write(online.learn(learn))
    except BrokenPipeError:
        return 0
    except BaseException as error:
        if leader is not None and leader.ranks > 1:
            time.sleep(_RANK_REPORT_S)
        writer.write(failure_of(error))
        return 1


class _FrameWriter:
    """Output of the process, used by one thread at a time."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._lock = sink, threading.Lock()

    def write(self, message: Message) -> None:
        """Send a message. Raises OSError if the retrainer has closed the pipe, and FrameTooLarge."""
        with self._lock:
            send(self._sink, message)

    def report(self, step: int, steps: int, loss: float) -> None:
        """Send the progress of a run."""
        self.write(Progress(step, steps, loss))

    def exit(self, failure: Failure) -> None:
        """Send a failure and end the process, independent of its main thread."""
        try:
            self.write(failure)
        finally:
            os._exit(1)


def _rank_leader(hello: Hello, writer: _FrameWriter) -> RankLeader:
    from tailrace.retrain.worker.ranks import RankLeader

    return RankLeader(hello, writer.exit)


def _online_trainer(spec: ModelSpec) -> OnlineTrainer:
    from tailrace.retrain.worker.online_trainer import OnlineTrainer

    return OnlineTrainer(spec)


def prepare(hello: Hello) -> ModelSpec:
    """Import torch, take a first step, load the pipeline, and return the spec of its module."""
    if hasattr(os, "nice"):
        os.nice(hello.nice)
    import torch

    from tailrace.retrain.training.loop import warm_up

    torch.set_num_threads(hello.threads)
    warm_up()
    module, _, attribute = hello.loader.partition(":")
    pipeline: Pipeline = getattr(importlib.import_module(module), attribute)(hello.reference)
    return ModelSpec.of(pipeline)


def _device() -> str:
    from tailrace.retrain.training.loop import best_device

    return best_device().type


def own_output() -> IO[bytes]:
    """Return standard output for frames alone; from now on, prints of user code go to standard error."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames


def _listen(source: IO[bytes], inbox: queue.SimpleQueue[Message]) -> None:
    """Put messages into the inbox; end the process at once when the other end closes the pipe."""
    try:
        while (message := receive(source)) is not None:
            inbox.put(message)
    finally:
        os._exit(0)


def failure_of(error: BaseException) -> Failure:
    """Return the message that reports an error: `reason` is diverged, unfit, out_of_memory or error."""
    name = type(error).__name__
    if name in ("Diverged", "Unfit"):
        return Failure(name.lower(), str(error))
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "not enough memory" in str(error):
        return Failure("out_of_memory", f"{name}: {error}")
    return Failure("error", f"{name}: {error}")


if __name__ == "__main__":
    sys.exit(main())
