"""Reading in a process of its own, so that a history is replayed while the rest of it is still being read."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection

from tailrace.app.settings import Settings
from tailrace.backtest.history.arrays import Delay, uncollected
from tailrace.backtest.history.parts import Part, parts
from tailrace.backtest.request import BacktestOptions, PipelineSource, moments


class PartsReader(Iterator[Part]):
    """Parts of a history, read by another process from now on; `close` ends that process.

    Labels are as late as they were. The subject must be importable or named, so that the other process can load it. An
    error of reading is raised where its part would come.
    """

    def __init__(self, subject: PipelineSource, asked: BacktestOptions, settings: Settings) -> None:
        context = get_context("spawn")  # a fork of a process with torch's threads may hang
        self._receiving, sending = context.Pipe(duplex=False)
        arguments = (sending, subject.text, subject.reference, asked, settings)
        self._process = context.Process(target=_send, args=arguments, daemon=True)
        try:
            self._process.start()
        except BaseException:
            self.close()
            raise
        finally:
            sending.close()

    def __next__(self) -> Part:
        if self._receiving.closed:
            raise StopIteration
        try:
            message = self._receiving.recv()
        except EOFError:
            self.close()
            raise RuntimeError("the process that read the history has ended before its end") from None
        if isinstance(message, Exception):
            self.close()
            raise message
        if message is None:
            self.close()
            raise StopIteration
        part: Part = message
        return part

    def close(self) -> None:
        """End the process, whatever it has read so far."""
        self._receiving.close()
        if self._process.pid is not None:
            self._process.terminate()
            self._process.join()


def _send(
    sending: Connection, text: str | None, reference: str | None, asked: BacktestOptions, settings: Settings
) -> None:
    """All that the other process does. It ends with the one that reads from it: then there is nobody to send to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uncollected():
            pipeline = PipelineSource.load(text=text, reference=reference).pipeline
            coming = moments(pipeline, asked, settings, Delay())
            for part in parts(coming, pipeline, pipeline.policy, dicts=asked.baselines):
                sending.send(part)
            sending.send(None)
    except BrokenPipeError:
        return
    except Exception as error:
        sending.send(error)
