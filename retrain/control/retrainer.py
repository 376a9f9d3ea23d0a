"""The retrainer: examples -> trigger -> training process -> gate -> release. One thread reads, decides and publishes.

    idle --a trigger is due--> training --candidate--> gate --passed--> published
                                   |                     +----refused--> recorded
                                   +----failed------------------------> recorded        (then idle again)

Beside that go online updates, in a process of their own: see `tailrace.retrain.control.updater`.

The group's committed positions say: the examples below them have been learned online (without online updates: a run has
considered them). They are committed with the release, or the report of the run, in one transaction of one fixed writer:
a crash repeats what was not committed, a second retrainer fences the first. While a run is under way examples are read
on; they count for the next one. On start the window before the committed positions is read again to fill the buffer.
Whatever fails, the champion stays what it is.
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

from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.gate import Gate
from tailrace.declaration.pipeline import Pipeline
from tailrace.declaration.triggers import first_due
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Refused
from tailrace.retrain.control.label_feed import Sight
from tailrace.retrain.control.observer import Observer
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.publisher import Overtaken, Publisher
from tailrace.retrain.control.reports import RunReport
from tailrace.retrain.control.run import Champion, Run, job_of, judge, manifest_of, run_of
from tailrace.retrain.control.trigger_state import Watch
from tailrace.retrain.control.updater import Refresher
from tailrace.retrain.selection.buffer import Buffer
from tailrace.retrain.selection.examples import Intake
from tailrace.retrain.selection.split import divided
from tailrace.retrain.worker.client import TrainingFailed, Trains
from tailrace.retrain.worker.protocol import Candidate, Progress
from tailrace.streams.log.base import Aborted, Batch, Committed, Log, Reader, TooLarge, TopicPartition
from tailrace.streams.log.codec import Malformed

_READ = 5_000
_NAP_S = 0.1
_NAP_TRAINING_S = 0.01
_UNFIT = (TrainingFailed, Refused, TooLarge, ValueError)  # the candidate's fault: repeating the run would not help

logger = structlog.get_logger("tailrace.retrainer")


class _Pending(NamedTuple):
    """A run under way. `considered`: where its examples end; `began`: by time.perf_counter; `moved`: see Refresher."""

    run: Run
    considered: dict[TopicPartition, int]
    began: float
    candidate: Future[Candidate]
    moved: int
    stages: dict[str, float]


class Retrainer:
    """Retrains one pipeline until told to stop.

    It is the group `<name>.retrainer`; the publisher's writer name decides who is the one retrainer. Runs are trained
    in `trainer`'s process, online updates in `twin`'s. `code_digest` goes into each manifest; `clock` gives unix
    seconds; `observer` is told of what happens. `malformed` counts unusable examples.
    """

    def __init__(
        self,
        log: Log,
        declared: Pipeline,
        publisher: Publisher,
        trainer: Trains,
        *,
        code_digest: str = "",
        clock: Callable[[], float] = time.time,
        twin: Trains | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._log, self._declared, self._publisher = log, declared, publisher
        self._trainer, self._code_digest, self._clock = trainer, code_digest, clock
        self._observer = observer = observer or Observer()
        self._topic, self._group = declared.topics.examples, f"{declared.name}.retrainer"
        self._intake = Intake(ModelSpec.of(declared).features, declared.task)
        self._buffer = Buffer(declared.training.window, declared.training.data)
        self._committed: dict[TopicPartition, int] = {}  # as this process found them
        self._considered: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._sight = Sight(declared, Watch(()), observer, clock)
        self._pending: _Pending | None = None
        self._refresher: Refresher | None = None
        if declared.online is not None and twin is not None:
            self._refresher = Refresher(
                declared,
                publisher,
                twin,
                self._champion,
                code_digest=code_digest,
                wall=clock,
                on_update=observer.updated,
            )
        self._at_end: set[TopicPartition] = set()
        self.malformed = 0
        self.idle = False
        """Whether all examples have been read, and what is due of them has been learned: nothing is left to do."""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Raises Fenced when a newer retrainer has taken over, and what the log raises."""
        if self._refresher:
            self._refresher.start()
        if self._declared.retrain:
            self._trainer.start()
        self._resume()
        reader = self._log.reader([self._topic], group=self._group, alone=True, start=self._positions)
        with ThreadPoolExecutor(2, "training") as pool:
            try:
                while not stop.is_set():
                    if self._refresher and self._refresher.behind and self._refilled:
                        stop.wait(_NAP_TRAINING_S)
                    else:
                        self._take(reader.read(_READ, _NAP_TRAINING_S if self._busy else _NAP_S))
                    if self._pending is None:
                        self._begin_if_due(pool)
                    elif self._pending.candidate.done():
                        self._finish(self._pending, reader)
                    if self._refresher and self._refilled:
                        self._refresher.tend(pool, reader, self._read_to())
                    self.idle = self._nothing_left(reader)
            finally:
                self._trainer.close()
                if self._refresher:
                    self._refresher.close()
                reader.close()

    @property
    def training(self) -> bool:
        """Whether a run is under way."""
        return self._pending is not None

    @property
    def _busy(self) -> bool:
        """Whether somebody trains, so that an answer may come soon."""
        return self._pending is not None or (self._refresher is not None and self._refresher.updating)

    @property
    def _refilled(self) -> bool:
        """Whether the window before the committed positions has been read again."""
        return all(self._positions[tp] >= at for tp, at in self._committed.items())

    def _nothing_left(self, reader: Reader) -> bool:
        owes = self._pending is not None or (self._refresher is not None and self._refresher.owes)
        return not owes and self._at_end >= reader.assignment

    def _read_to(self) -> dict[int, int]:
        return {tp.partition: at for tp, at in self._positions.items()}

    def _resume(self) -> None:
        """Where the last run and the last update left off, and the window before it."""
        begin = self._log.begin_positions(self._topic)
        committed = self._log.committed(self._group, [self._topic])
        plan = self._declared.training
        reach = plan.data.reach(plan.window)
        share = -(-reach // max(len(begin), 1)) if math.isfinite(reach) else math.inf
        last = self._publisher.models.last_run
        self._committed = {tp: committed[tp].offset if tp in committed else at for tp, at in begin.items()}
        self._positions = {tp: int(max(at, self._committed[tp] - share)) for tp, at in begin.items()}
        considered = last.considered if last else {}
        self._considered = {
            tp: min(considered.get(tp.partition, begin[tp]), at) if self._refresher else at
            for tp, at in self._committed.items()
        }
        wall = self._declared.training.clock == "wall"
        watch = Watch(
            self._declared.retrain,
            metric=Gate().metric_for(self._declared.task.kind),
            since=last.since if last else self._clock() if wall else math.inf,
            created=(last.at if wall else last.since) if last and last.version else None,
            names=(*ModelSpec.of(self._declared).features.numbers, *ModelSpec.of(self._declared).features.categories),
        )
        self._sight = Sight(self._declared, watch, self._observer, self._clock)

    def _take(self, batch: Batch) -> None:
        """Put examples into the buffer; those that no run has considered count as new labels."""
        rows, inputs, malformed = self._intake.rows(batch.records)
        self._skip(malformed)
        if batch.records:
            self._observer.taken(len(rows), malformed)
        self._buffer.append(rows)
        if self._refresher:
            self._refresher.take(rows, {tp.partition: at for tp, at in self._committed.items()})
        self._sight.see(rows, inputs, {tp.partition: at for tp, at in self._considered.items()})
        for record in batch.records:
            self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._at_end -= {TopicPartition(record.topic, record.partition) for record in batch.records}
        self._at_end |= batch.at_end.keys()
        self._positions |= batch.at_end  # behind control records too

    def _skip(self, malformed: list[Malformed]) -> None:
        """Count them, and say so once a batch: after a change of the declaration they may be the whole window."""
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

    def _begin_if_due(self, pool: ThreadPoolExecutor) -> None:
        if not self._refilled or len(self._buffer) < self._declared.training.min_examples:
            return
        facts = self._sight.facts()
        due = first_due(self._declared.retrain, facts)
        if due is not None:
            self._begin(pool, due, facts)

    def _begin(self, pool: ThreadPoolExecutor, due: Due, facts: Facts) -> None:
        began, plan = time.perf_counter(), self._declared.training
        champion = self._champion()
        seen = (
            {} if self._refresher else champion.seen(self._topic)
        )  # updates have seen all: see tailrace.retrain.control.run
        chosen = self._buffer.select(
            seen,
            plan,
            now=facts.now,
            through=champion.manifest.trained_through if champion.manifest else -math.inf,
            changed=facts.drift.changed if facts.drift else None,
        )
        selection = divided(chosen, seen, plan, self._declared.online)
        if not selection.train:
            logger.warning("no run: no example is mature yet", reason=due.reason, examples=len(self._buffer))
            self._sight.watch.began(facts)
            return
        warm = champion.fits(self._declared) and plan.start == "warm" and self._refresher is None
        run = run_of(due, facts, champion, selection, plan.seed + champion.version, self._declared, warm=warm)
        job = job_of(run, self._declared)
        logger.info("retraining started", reason=due.reason, examples=job.train, fresh=job.fresh)
        self._publisher.pinned = {champion.version}
        future = pool.submit(self._trainer.train, job, self._tell)
        moved = self._refresher.moved if self._refresher else 0
        stages = {"select": time.perf_counter() - began}
        self._pending = _Pending(run, dict(self._positions), began, future, moved, stages)
        self._considered = dict(self._positions)
        self._sight.watch.began(facts)
        self._sight.tell_waiting()

    def _tell(self, progress: Progress) -> None:
        logger.debug("retraining", step=progress.step, steps=progress.steps, loss=round(progress.loss, 4))
        self._observer.progressed(progress.step, progress.steps, progress.loss)

    def _champion(self) -> Champion:
        """The release that the alias names now: an operator may have moved it."""
        models = self._publisher.models
        models.refresh()
        version = models.champion
        if version not in models.registry.releases:
            return Champion(version)
        try:
            return Champion(version, *self._publisher.verified(version))
        except Refused as refused:
            logger.warning("the champion cannot be a parent", version=version, detail=str(refused))
            return Champion(version)

    def _finish(self, pending: _Pending, reader: Reader) -> None:
        try:
            report = self._conclude(pending, reader)
        except Aborted as aborted:  # nothing was written: the candidate is still there, and is tried again
            logger.warning("could not publish yet", detail=str(aborted))
            return
        self._pending = None
        self._publisher.pinned = set()
        self._sight.watch.ended(report.total_s)
        logger.info(
            "retraining ended",
            **{k: v for k, v in msgspec.to_builtins(report).items() if k not in ("since", "considered")},
        )
        self._observer.ran(report, pending.stages)
        self._sight.tell_waiting()

    def _conclude(self, pending: _Pending, reader: Reader) -> RunReport:
        """Decide and write what came of a run, in one transaction with its positions."""
        done = pending.considered
        if self._refresher:
            learned = self._refresher.positions(self._read_to())
            done = {tp: learned[tp.partition] for tp in done}
        positions = _committed(done)
        try:
            return self._decide(pending, pending.candidate.result(), positions, reader)
        except _UNFIT as failure:
            report = self._report(pending, "failed", str(failure))
            self._publisher.record(report, positions, reader)
            self._trainer.start()
            return report

    def _decide(
        self, pending: _Pending, candidate: Candidate, positions: dict[TopicPartition, Committed], reader: Reader
    ) -> RunReport:
        run, stages, detail = pending.run, pending.stages, ""
        stages["train"] = candidate.seconds
        with _timed(stages, "gate"):
            verdict = _judged(run, candidate, self._declared)
        if verdict.passed:
            report = self._report(pending, "published", verdict.reason, candidate, verdict)
            draft = manifest_of(run, candidate, verdict, self._declared, self._code_digest, report.at)
            refresher = self._refresher
            if refresher and refresher.newest is not None and refresher.moved == pending.moved:
                draft = msgspec.structs.replace(draft, parent=refresher.newest)  # updates have gone on meanwhile
            try:
                learned = _committed(pending.considered)  # all that it has learned, unlike the release it replaces
                with _timed(stages, "publish"):
                    version = self._publisher.publish(draft, candidate.state, report, learned, reader)
            except Overtaken as overtaken:
                detail = str(overtaken)
            else:
                if refresher:
                    refresher.restart(version, report.considered)
                metrics = {} if verdict.candidate is None else {verdict.metric: verdict.candidate}
                self._sight.watch.published(self._sight.now(), metrics, verdict.examples)
                return msgspec.structs.replace(report, version=version)
        report = self._report(pending, "refused", detail or verdict.reason, candidate, verdict)
        self._publisher.record(report, positions, reader)
        return report

    def _report(
        self,
        pending: _Pending,
        outcome: Literal["published", "refused", "failed"],
        detail: str,
        candidate: Candidate | None = None,
        verdict: GateResult | None = None,
    ) -> RunReport:
        run = pending.run
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
            total_s=time.perf_counter() - pending.began,
            seconds=candidate.seconds if candidate else 0.0,
            warm=candidate.warm if candidate else False,
            device=candidate.device if candidate else "",
            gate=verdict,
            considered={tp.partition: at for tp, at in pending.considered.items()},
        )


@contextmanager
def _timed(stages: dict[str, float], stage: str) -> Iterator[None]:
    """How long a stage takes, in seconds."""
    began = time.perf_counter()
    yield
    stages[stage] = time.perf_counter() - began


def _committed(positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, Committed]:
    return {tp: Committed(offset) for tp, offset in positions.items()}


def _judged(run: Run, candidate: Candidate, declared: Pipeline) -> GateResult:
    """The gate's verdict. Raises TrainingFailed for scores that it cannot judge: a user's module may give any."""
    try:
        return judge(run, candidate, declared)
    except Exception as error:
        raise TrainingFailed("error", f"the gate cannot judge it: {type(error).__name__}: {error}") from error
