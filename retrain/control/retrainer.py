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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, NamedTuple

import msgspec
import structlog

from tailrace.declaration.gate import Gate
from tailrace.declaration.pipeline import Pipeline
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Refused
from tailrace.retrain.control.core import RetrainingCore, RunResult, RunUnderWay
from tailrace.retrain.control.label_feed import LabelFeed
from tailrace.retrain.control.observer import Observer
from tailrace.retrain.control.online_updates import OnlineUpdates
from tailrace.retrain.control.publisher import Overtaken, Publisher
from tailrace.retrain.control.reports import RunReport
from tailrace.retrain.control.run import Champion, job_of, manifest_of
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.selection.examples import ExampleDecoder
from tailrace.retrain.worker.client import TrainingBackend, TrainingFailed
from tailrace.retrain.worker.protocol import Candidate, Progress
from tailrace.streams.log.backoff import Backoff
from tailrace.streams.log.base import Aborted, Batch, Committed, Log, Reader, TooLarge, TopicMissing, TopicPartition
from tailrace.streams.log.codec import Malformed

_READ = 5_000
_PAUSE_S = 0.1
_PAUSE_TRAINING_S = 0.01
_CHECK_S = 10.0  # between two checks that the examples topic is still the one that was read
_UNFIT = (TrainingFailed, Refused, TooLarge, ValueError)  # the candidate's fault: repeating the run would not help

logger = structlog.get_logger("tailrace.retrainer")


class _Training(NamedTuple):
    """A run in the training process. `started`: by time.perf_counter; `stages`: seconds by stage."""

    started: float
    candidate: Future[Candidate]
    stages: dict[str, float]


class Retrainer:
    """Retrains one pipeline until told to stop.

    It is the group `<name>.retrainer`; the publisher's writer name decides which process is the one retrainer. Runs are
    trained in `trainer`'s process, online updates in `updates`'s. `code_digest` goes into each manifest; `clock` gives
    unix seconds; `observer` is informed of every step. `malformed` counts unusable examples.
    """

    _core: RetrainingCore
    _feed: LabelFeed
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
        observer: Observer | None = None,
    ) -> None:
        self._log, self._declared, self._publisher = log, declared, publisher
        self._trainer, self._code_digest, self._clock = trainer, code_digest, clock
        self._observer = observer or Observer()
        self._topic, self._group = declared.topics.examples, f"{declared.name}.retrainer"
        self._spec = ModelSpec.of(declared)
        self._decoder = ExampleDecoder(self._spec)
        self._updates_trainer = updates if declared.online is not None else None
        self._considered: dict[int, int] = {}  # partition -> offset below which a run has considered the examples
        self._positions: dict[TopicPartition, int] = {}
        self._training: _Training | None = None
        self._backoff = Backoff(0.1, 60.0)  # between attempts to publish a run
        self._publish_at = -math.inf
        self._at_end: set[TopicPartition] = set()
        self._checked = time.monotonic()
        self.malformed = 0
        self.idle = False
        """Whether all examples have been read, and nothing that was due is left to do."""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Raises Fenced when a newer retrainer has taken over, and errors of the log."""
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
        core, updates = self._core, self._updates
        if core.behind:
            stop.wait(_PAUSE_TRAINING_S)
        else:
            self._take(reader.read(_READ, _PAUSE_S if core.run is None and not core.updating else _PAUSE_TRAINING_S))
        if self._training is None:
            self._start_if_due(pool)
        elif self._training.candidate.done() and time.monotonic() >= self._publish_at:
            self._finish(self._training, reader)
        if updates is not None:
            updates.tend(pool, reader)
        self.idle = core.idle and self._at_end >= reader.assignment

    @property
    def training(self) -> bool:
        """Whether a run is under way."""
        return self._training is not None

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
        if self._updates_trainer is not None:
            self._updates = OnlineUpdates(
                self._declared,
                self._core,
                self._publisher,
                self._updates_trainer,
                self._load_champion,
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
            created=(last.at if wall else last.since) if last and last.version else None,
            names=(*features.numbers, *features.categories),
        )

    # Examples.

    def _take(self, batch: Batch) -> None:
        """Pass examples on; those that no run has considered count as new labels."""
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

    # Runs.

    def _start_if_due(self, pool: ThreadPoolExecutor) -> None:
        asked = self._core.run_due(self._feed.now())
        if asked is None:
            return
        started, payload = time.perf_counter(), self._load_champion()
        run = self._core.start_run(asked)
        reason = asked.due.reason
        if run is None:
            logger.warning("no run: no example is mature yet", reason=reason, examples=self._core.examples)
            return
        job = job_of(run, self._declared, payload if run.champion.fits else None)
        logger.info("retraining started", reason=reason, examples=job.train, fresh=job.fresh)
        self._publisher.pinned = {run.champion.version}
        future = pool.submit(self._trainer.train, job, self._report_progress)
        self._training = _Training(started, future, {"select": time.perf_counter() - started})
        assert self._core.run is not None
        self._considered = self._core.run.considered
        self._feed.report_waiting()

    def _report_progress(self, progress: Progress) -> None:
        logger.debug("retraining", step=progress.step, steps=progress.steps, loss=round(progress.loss, 4))
        self._observer.progressed(progress.step, progress.steps, progress.loss)

    def _load_champion(self) -> bytes | None:
        """Tell the core which release serves now, and return its weights; None where it cannot be a parent."""
        models = self._publisher.models
        models.refresh()
        version = models.champion
        if version not in models.registry.releases:
            self._core.champion_is(Champion(version))
            return None
        try:
            manifest, payload = self._publisher.verified(version)
        except Refused as refused:
            logger.warning("the champion cannot be a parent", version=version, detail=str(refused))
            self._core.champion_is(Champion(version))
            return None
        self._core.champion_is(Champion.of(manifest, self._declared))
        return payload

    def _finish(self, training: _Training, reader: Reader) -> None:
        try:
            report = self._conclude(training, reader)
        except Aborted as aborted:  # nothing was written: the candidate is kept, and publishing is tried again
            self._publish_at = time.monotonic() + self._backoff.pause()
            logger.warning("could not publish yet", detail=str(aborted))
            return
        self._backoff.reset()
        self._training = None
        self._publisher.pinned = set()
        self._core.run_ended(report.total_s)
        logger.info(
            "retraining ended",
            **{k: v for k, v in msgspec.to_builtins(report).items() if k not in ("since", "considered")},
        )
        self._observer.ran(report, training.stages)
        self._feed.report_waiting()

    def _conclude(self, training: _Training, reader: Reader) -> RunReport:
        """Judge the candidate and write the result of the run, in one transaction with its positions."""
        try:
            candidate = training.candidate.result()
            training.stages["train"] = candidate.seconds
            with _timed(training.stages, "gate"):
                result = self._judged(candidate)
            return self._write_result(training, candidate, result, reader)
        except _UNFIT as failure:
            report = self._report(training, "failed", str(failure))
            self._publisher.record(report, self._commits(self._core.positions()), reader)
            self._trainer.start()
            return report

    def _judged(self, candidate: Candidate) -> RunResult:
        """Ask the core. Raises TrainingFailed for scores that cannot be judged: a user's module may give any."""
        try:
            return self._core.run_finished(candidate)
        except Exception as error:
            raise TrainingFailed("error", f"the gate cannot judge it: {type(error).__name__}: {error}") from error

    def _write_result(self, training: _Training, candidate: Candidate, result: RunResult, reader: Reader) -> RunReport:
        gate, detail = result.gate, result.gate.reason
        if gate.passed:
            report = self._report(training, "published", gate.reason, candidate, result)
            draft = manifest_of(result.run, candidate, gate, self._declared, self._code_digest, report.at)
            draft = msgspec.structs.replace(draft, parent=result.parent)
            try:
                with _timed(training.stages, "publish"):
                    # It has learned all examples that were read when it started, unlike the release that it replaces.
                    learned = self._commits(self._under_way.considered)
                    version = self._publisher.publish(draft, candidate.state, report, learned, reader)
            except Overtaken as overtaken:
                detail = str(overtaken)
            else:
                self._core.run_published(version, self._feed.now(), gate)
                return msgspec.structs.replace(report, version=version)
        report = self._report(training, "refused", detail, candidate, result)
        self._publisher.record(report, self._commits(self._core.positions()), reader)
        return report

    @property
    def _under_way(self) -> RunUnderWay:
        assert self._core.run is not None
        return self._core.run

    def _commits(self, positions: Mapping[int, int]) -> dict[TopicPartition, Committed]:
        return {TopicPartition(self._topic, partition): Committed(at) for partition, at in positions.items()}

    def _report(
        self,
        training: _Training,
        outcome: Literal["published", "refused", "failed"],
        detail: str,
        candidate: Candidate | None = None,
        result: RunResult | None = None,
    ) -> RunReport:
        run = self._under_way.run
        return RunReport(
            outcome=outcome,
            reason=run.due.reason,
            trigger=run.due.kind,
            detail=detail,
            parent=run.champion.version,
            since=run.facts.now,
            at=self._clock(),
            examples=len(run.selection.train),
            fresh=run.selection.fresh,
            labels=run.facts.labels,
            total_s=time.perf_counter() - training.started,
            seconds=candidate.seconds if candidate else 0.0,
            warm=candidate.warm if candidate else False,
            device=candidate.device if candidate else "",
            gate=result.gate if result else None,
            considered=self._under_way.considered,
        )


@contextmanager
def _timed(stages: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage takes, in seconds."""
    started = time.perf_counter()
    yield
    stages[stage] = time.perf_counter() - started
