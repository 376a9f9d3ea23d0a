"""Reader process of a history: it reads further parts while the earlier ones are replayed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection

from tailrace.app.settings import Settings
from tailrace.backtest.history.arrays import Delay, collector_paused
from tailrace.backtest.history.parts import Part, parts
from tailrace.backtest.request import BacktestOptions, PipelineSource, moments


class PartsReader(Iterator[Part]):
    """Parts of a history, read by a process that starts at once; `close` ends it.

    Labels have their recorded delay. The source must have a text or a reference, from which the process loads the
    pipeline. An error of the reader is raised in place of the part that it prevented. RuntimeError: the process died.
    """

    def __init__(self, source: PipelineSource, options: BacktestOptions, settings: Settings) -> None:
        context = get_context("spawn")  # a fork of a process with torch's threads may hang
        self._receiving, sending = context.Pipe(duplex=False)
        arguments = (sending, source.text, source.reference, options, settings)
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
            raise RuntimeError("the process that reads the history ended before it had read everything") from None
        if isinstance(message, Exception):
            self.close()
            raise message
        if message is None:
            self.close()
            raise StopIteration
        part: Part = message
        return part

    def close(self) -> None:
        """End the process and discard the parts that were not taken."""
        self._receiving.close()
        if self._process.pid is not None:
            self._process.terminate()
            self._process.join()


def _send(
    sending: Connection, text: str | None, reference: str | None, options: BacktestOptions, settings: Settings
) -> None:
    """Read all parts and send them, then None. Runs in the reader process and returns if the receiver has closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with collector_paused():
            pipeline = PipelineSource.load(text=text, reference=reference).pipeline
            recorded = moments(pipeline, options, settings, Delay())
            for part in parts(recorded, pipeline, pipeline.policy, dicts=options.baselines):
                sending.send(part)
            sending.send(None)
    except BrokenPipeError:
        return
    except Exception as error:
        sending.send(error)
