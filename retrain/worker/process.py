"""The training process: `python -m retrain.worker.process`, started by `retrain.worker.client`, alive from run to run.

It stays because importing torch takes longer than most runs. It speaks `retrain.worker.protocol` over stdin and
stdout and ends when its input closes, in the middle of a run too: so it never outlives the retrainer, however that one
died. After a failure it ends as well; the next run gets a fresh process.
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
    from tailrace.retrain.worker.ranks import Crew

_WORD_S = 0.5  # for a rank that failed first to say why, before what it caused here is told


def main() -> int:
    """Answer what comes until the input closes."""
    source, voice = sys.stdin.buffer, _Voice(own_output())
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(source, inbox), daemon=True).start()
    crew: Crew | None = None
    try:
        hello = inbox.get()
        assert isinstance(hello, Hello)
        crew = _crew(hello, voice)
        spec = prepare(hello)
        twin = _twin(spec)
        voice.say(Ready(_device()))
        while True:
            match inbox.get():
                case Job() as job:
                    voice.say(candidate(spec, job, voice.report, crew.tell(job)))
                case Begin() as begin:
                    twin.begin(begin)
                case Learn() as learn:
                    voice.say(twin.learn(learn))
    except BrokenPipeError:
        return 0
    except BaseException as error:
        if crew is not None and crew.ranks > 1:
            time.sleep(_WORD_S)
        voice.say(failure_of(error))
        return 1


class _Voice:
    """What the process says; one thread at a time."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._lock = sink, threading.Lock()

    def say(self, message: Message) -> None:
        """Raises OSError when nobody listens."""
        with self._lock:
            send(self._sink, message)

    def report(self, step: int, steps: int, loss: float) -> None:
        """Say how a run gets on."""
        self.say(Progress(step, steps, loss))

    def give_up(self, failure: Failure) -> None:
        """Say what has failed, and end the process, whatever its main thread is waiting for."""
        try:
            self.say(failure)
        finally:
            os._exit(1)


def _crew(hello: Hello, voice: _Voice) -> Crew:
    from tailrace.retrain.worker.ranks import Crew

    return Crew(hello, voice.give_up)


def _twin(spec: ModelSpec) -> OnlineTrainer:
    from tailrace.retrain.worker.online_trainer import OnlineTrainer

    return OnlineTrainer(spec)


def prepare(hello: Hello) -> ModelSpec:
    """Import what is slow and load the pipeline."""
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
    """Keep standard output for frames; what user code prints goes to standard error."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames


def _listen(source: IO[bytes], inbox: queue.SimpleQueue[Message]) -> None:
    """Pass on what comes; when the other end is gone, end the process at once."""
    try:
        while (message := receive(source)) is not None:
            inbox.put(message)
    finally:
        os._exit(0)


def failure_of(error: BaseException) -> Failure:
    """What went wrong, for the retrainer."""
    name = type(error).__name__
    if name in ("Diverged", "Unfit"):
        return Failure(name.lower(), str(error))
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "not enough memory" in str(error):
        return Failure("out_of_memory", f"{name}: {error}")
    return Failure("error", f"{name}: {error}")


if __name__ == "__main__":
    sys.exit(main())
