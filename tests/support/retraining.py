"""A retrainer in a thread, on the embedded log; it trains in this process, or in real training processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from support import retrain_pipeline as tiny
from support.waiting import PATIENCE_S, until

from tailrace import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.inference.releases.storage import Store
from tailrace.retrain.control.observer import RetrainerObserver
from tailrace.retrain.control.publisher import Publisher
from tailrace.retrain.control.reports import RunReport, UpdateReport
from tailrace.retrain.control.retrainer import Retrainer
from tailrace.retrain.worker.client import Trainer
from tailrace.retrain.worker.inline import InlineTrainer
from tailrace.streams.log.records import Example, Out
from tailrace.streams.log.sqlite.log import SqliteLog

KEY = SigningKey.generate()
TRUSTED = TrustedKeys([KEY.public_pem()])
MODELS, EXAMPLES, GROUP = "tiny.models", "tiny.examples", "tiny.retrainer"


Start: TypeAlias = Callable[..., "Running"]


class Recorder(RetrainerObserver):
    """Observer that keeps the reports of a running retrainer."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def ran(self, report: RunReport, stages: Mapping[str, float]) -> None:
        self._running.reports.append(report)

    def updated(self, report: UpdateReport) -> None:
        self._running.updates.append(report)


class Running:
    """A retrainer in a thread, with the trainers and the publisher that it owns.

    With `process` it trains in child processes, as in production: for tests of their death, and where a run and an
    update train at the same time. Starting one takes seconds of processor time, so the other tests do without.
    """

    def __init__(
        self, log: SqliteLog, declared: Pipeline, name: str, store: Store | None = None, *, process: bool = False
    ) -> None:
        self.reports: list[RunReport] = []
        self.updates: list[UpdateReport] = []
        self.error: BaseException | None = None
        self.trainer = self._trainer(declared, name, process)
        self.update_trainer = self._trainer(declared, name, process) if declared.online else None
        self.publisher = Publisher(log, MODELS, "tiny-retrainer", TRUSTED, KEY, store=store)
        self.retrainer = Retrainer(
            log,
            declared,
            self.publisher,
            self.trainer,
            updates=self.update_trainer,
            code_digest="abc",
            observer=Recorder(self),
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    @staticmethod
    def _trainer(declared: Pipeline, name: str, process: bool) -> Trainer | InlineTrainer:
        if process:
            return Trainer(tiny.LOADER, f"support.retrain_pipeline:{name}")
        return InlineTrainer(ModelSpec.of(declared))

    def _work(self) -> None:
        try:
            self.retrainer.run(self._stop)
        except BaseException as error:
            self.error = error

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition; fail as soon as the retrainer has ended with an error."""
        until(condition, check=self._fine)

    def _fine(self) -> None:
        assert self.error is None, self.error

    def ended(self) -> None:
        """Wait until the retrainer has stopped by itself."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """Stop the retrainer; a second call does nothing."""
        self._stop.set()
        self.ended()
        self.publisher.close()


def append(log: SqliteLog, some: Iterator[Example]) -> None:
    write(log, tiny.records(EXAMPLES, some))


def write(log: SqliteLog, records: list[Out]) -> None:
    writer = log.writer()
    writer.write(records)
    writer.commit()
    writer.flush()
    writer.close()


def committed(log: SqliteLog) -> int:
    return sum(position.offset for position in log.committed(GROUP, [EXAMPLES]).values())
