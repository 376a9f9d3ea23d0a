"""Reading in a process of its own, so that a history is replayed while the rest of it is still being read."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection

from tailrace.app.settings import Settings
from tailrace.backtest.history.arrays import Delay, uncollected
from tailrace.backtest.history.parts import Part, parts
from tailrace.backtest.request import Asked, Subject, moments


def parts_apart(subject: Subject, asked: Asked, settings: Settings) -> Iterator[Part]:
    """The parts of a history whose labels are as late as they were, read from now on. The subject must be one that
    another process finds. Raises what reading raises, once it is come to."""
    context = get_context("spawn")  # a fork of a process with torch's threads may hang
    receiving, sending = context.Pipe(duplex=False)
    told = (sending, subject.text, subject.reference, asked, settings)
    process = context.Process(target=_send, args=told, daemon=True)
    process.start()
    sending.close()
    return _received(receiving)


def _received(receiving: Connection) -> Iterator[Part]:
    with receiving:
        while True:
            try:
                said = receiving.recv()
            except EOFError:
                raise RuntimeError("the process that read the history has ended before its end") from None
            if said is None:
                return
            if isinstance(said, Exception):
                raise said
            yield said


def _send(sending: Connection, text: str | None, reference: str | None, asked: Asked, settings: Settings) -> None:
    """All that the other process does. It ends with the one that reads from it: then there is nobody to send to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uncollected():
            pipeline = Subject.load(text=text, reference=reference).pipeline
            coming = moments(pipeline, asked, settings, Delay())
            for part in parts(coming, pipeline, pipeline.policy, dicts=asked.baselines):
                sending.send(part)
            sending.send(None)
    except BrokenPipeError:
        return
    except Exception as error:
        sending.send(error)
