"""The live retrainer: reads examples, starts training processes, and publishes what the core decides.

`control.core` decides; this module is the log, the clock and the processes around it. One thread reads, asks the core
and publishes; training runs in processes of its own (`retrain.worker`). Online updates are in `control.online_updates`.

Committed positions of the group say: the examples below them were learned by online updates (without online updates:
were considered by a run). They are committed with the release, or with the report of the run, in one transaction of
one fixed writer. A crash therefore repeats only what was not committed, and a second retrainer fences the first. While
a run is under way examples are read on; they count for the next run. On start the retrainer reads the window before
the committed positions again, to fill the buffer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from tailrace.declaration.gate import Gate
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.control.core import RetrainingCore
from tailrace.retrain.control.label_feed import LabelFeed
from tailrace.retrain.control.observer import RetrainerObserver
from tailrace.retrain.control.online_updates import OnlineUpdates
from tailrace.retrain.control.publisher import Publisher
from tailrace.retrain.control.reports import RunReport
from tailrace.retrain.control.runs import Runs
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.selection.examples import ExampleDecoder
from tailrace.retrain.worker.client import TrainingBackend
from tailrace.streams.log.base import Batch, Log, Reader, TopicMissing, TopicPartition
from tailrace.streams.log.codec import Malformed

_READ = 5_000
_PAUSE_S = 0.1
_PAUSE_TRAINING_S = 0.01
_CHECK_S = 10.0  # between two checks that the examples topic is still the one that was read

logger = structlog.get_logger("tailrace.retrainer")


class Retrainer:
    """Retrains one pipeline until the event that `run` was given is set.

    It is the group `<name>.retrainer`; the publisher's writer name decides which process is the one retrainer. Runs are
    trained in `trainer`'s process, online updates in `updates`'s. `code_digest` goes into each manifest; `clock` gives
    unix seconds; `observer` is informed of every step. `malformed` counts unusable examples.
    """

    _core: RetrainingCore
    _feed: LabelFeed
    _runs: Runs | None = None
    _updates: OnlineUpdates | None = None

    def __init__(
        self,
        log: Log,
        declared: Pipeline,
        publisher: Publisher,
        trainer: TrainingBackend,
        *,
        code_digest: str = "",
        clock: Callable[[], float] = time.time,
        updates: TrainingBackend | None = None,
        observer: RetrainerObserver | None = None,
    ) -> None:
        self._log, self._declared, self._publisher = log, declared, publisher
        self._trainer, self._code_digest, self._clock = trainer, code_digest, clock
        self._observer = observer or RetrainerObserver()
        self._topic, self._group = declared.topics.examples, f"{declared.name}.retrainer"
        self._spec = ModelSpec.of(declared)
        self._decoder = ExampleDecoder(self._spec)
        self._updates_trainer = updates if declared.online is not None else None
        self._considered: dict[int, int] = {}  # partition -> offset below which a run has considered the examples
        self._positions: dict[TopicPartition, int] = {}
        self._at_end: set[TopicPartition] = set()
        self._checked = time.monotonic()
        self.malformed = 0
        self.idle = False
        """True if all examples have been read, and nothing that was due is left to do."""

    def run(self, stop: threading.Event) -> None:
        """Retrain until `stop` is set. Raises Fenced when a newer retrainer has taken over, and errors of the log."""
        try:
            if self._updates_trainer is not None:
                self._updates_trainer.start()
            if self._declared.retrain:
                self._trainer.start()
            self._resume()
            reader = self._log.reader([self._topic], group=self._group, alone=True, start=self._positions)
            try:
                with ThreadPoolExecutor(2, "training") as pool:
                    try:
                        while not stop.is_set():
                            self._step(pool, reader, stop)
                    finally:
                        self._close_trainers()  # before the pool waits for their answers
            finally:
                reader.close()
        finally:
            self._close_trainers()

    def _close_trainers(self) -> None:
        self._trainer.close()
        if self._updates_trainer is not None:
            self._updates_trainer.close()

    def _step(self, pool: ThreadPoolExecutor, reader: Reader, stop: threading.Event) -> None:
        core, runs, updates = self._core, self._runs, self._updates
        assert runs is not None
        if core.behind:
            stop.wait(_PAUSE_TRAINING_S)
        else:
            self._take(reader.read(_READ, _PAUSE_S if core.run is None and not core.updating else _PAUSE_TRAINING_S))
        runs.tend(pool, reader)
        if updates is not None:
            updates.tend(pool, reader)
        self.idle = core.idle and self._at_end >= reader.assignment

    @property
    def training(self) -> bool:
        """True if a run is under way."""
        return self._runs is not None and self._runs.under_way

    def _resume(self) -> None:
        """Find where the last run and the last update ended, and the window before that."""
        begin, committed = self._log.begin_positions(self._topic), self._committed()
        plan = self._declared.training
        reach = plan.data.reach(plan.window)
        share = -(-reach // max(len(begin), 1)) if math.isfinite(reach) else math.inf
        self._positions = {tp: int(max(at, committed[tp] - share)) for tp, at in begin.items()}
        last = self._publisher.models.last_run
        considered = last.considered if last else {}
        self._considered = {  # without online updates the committed positions are those of the last run
            tp.partition: at if self._updates_trainer is None else min(considered.get(tp.partition, begin[tp]), at)
            for tp, at in committed.items()
        }
        triggers = self._trigger_state(last)
        self._core = RetrainingCore(
            self._declared, triggers, learned={tp.partition: at for tp, at in committed.items()}
        )
        self._feed = LabelFeed(self._declared, triggers, self._observer, self._clock)
        self._runs = Runs(
            self._declared,
            self._core,
            self._feed,
            self._publisher,
            self._trainer,
            observer=self._observer,
            code_digest=self._code_digest,
            clock=self._clock,
        )
        if self._updates_trainer is not None:
            self._updates = OnlineUpdates(
                self._declared,
                self._core,
                self._publisher,
                self._updates_trainer,
                code_digest=self._code_digest,
                wall=self._clock,
                on_update=self._observer.updated,
            )

    def _committed(self) -> dict[TopicPartition, int]:
        """Committed positions of the group; the beginning where there are none, or where the topic is a new one."""
        begin, end = self._log.begin_positions(self._topic), self._log.end_positions(self._topic)
        committed = {tp: found.offset for tp, found in self._log.committed(self._group, [self._topic]).items()}
        beyond = [tp.partition for tp, at in committed.items() if at > end.get(tp, 0)]
        if beyond:
            logger.warning(
                "the examples topic was created again: reading it from the beginning",
                topic=self._topic,
                partitions=sorted(beyond),
            )
            return dict(begin)
        return {tp: committed.get(tp, at) for tp, at in begin.items()}

    def _trigger_state(self, last: RunReport | None) -> TriggerState:
        wall = self._declared.training.clock == "wall"
        features = self._spec.features
        return TriggerState(
            self._declared.retrain,
            metric=Gate().metric_for(self._declared.task.kind),
            since=last.since if last else self._clock() if wall else math.inf,
            created=self._champion_created(wall=wall),
            names=(*features.numbers, *features.categories),
        )

    def _champion_created(self, *, wall: bool) -> float | None:
        """Publication time of the run's release that serves, or that the serving chain of updates started from.

        On the event clock: the time at which its run was started. None: no run has made it.
        """
        manifest = self._publisher.manifest(self._publisher.models.champion)
        if manifest is not None and manifest.updates is not None:
            manifest = self._publisher.manifest(manifest.updates.base)
        if manifest is None or manifest.updates is not None:
            return None
        return manifest.created if wall else manifest.facts.get("now")

    # Examples.

    def _take(self, batch: Batch) -> None:
        """Pass examples to the core and the label feed; those that no run has considered count as new labels."""
        if not batch.records:
            self._check_topic()
        rows, inputs, malformed = self._decoder.rows(batch.records)
        self._skip(malformed)
        if batch.records:
            self._observer.taken(len(rows), malformed)
        for record in batch.records:
            self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._positions |= batch.at_end  # past the control records of transactions too
        self._core.examples_read(rows, {tp.partition: at for tp, at in self._positions.items()})
        self._feed.see(rows, inputs, self._considered)
        self._at_end -= {TopicPartition(record.topic, record.partition) for record in batch.records}
        self._at_end |= batch.at_end.keys()

    def _skip(self, malformed: list[Malformed]) -> None:
        """Count malformed examples, and log them once per batch: after a change of the declaration they may be many."""
        if malformed:
            self.malformed += len(malformed)
            first = malformed[0]
            logger.warning(
                "examples skipped",
                count=len(malformed),
                partition=first.record.partition,
                offset=first.record.offset,
                reason=first.reason,  # its detail may quote the example
            )

    def _check_topic(self) -> None:
        """Raise TopicMissing when the examples topic was deleted and created again; a restart reads the new one."""
        if time.monotonic() - self._checked < _CHECK_S:
            return
        self._checked = time.monotonic()
        end = self._log.end_positions(self._topic)
        if any(at > end.get(tp, 0) for tp, at in self._positions.items()):
            raise TopicMissing(f"{self._topic} was deleted and created again: the retrainer has to start again")
